"""The model as it is, which the ways of adapting it must beat."""

from nuclei_unet.adaptation.study import Study, Variant

NAME = "baseline"


def baseline(study: Study) -> Variant:
    """Change nothing."""
    predict = study.metadata.predict
    counts = [study.trials.counts(index, predict) for index in range(len(study.parts))]
    return Variant(NAME, counts, lambda: (predict, study.data))
