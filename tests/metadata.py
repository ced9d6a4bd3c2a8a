"""A metadata as training would write it, for models that tests build."""

from nuclei_unet.network.metadata import Metadata
from nuclei_unet.settings import NormalizeSettings


def metadata_of(settings, network, targets=("foreground", "border"), predict=None):
    """Return the metadata of a network with the committed normalization; `settings` are all parameters."""
    normalize = {key: getattr(settings.preprocess, key) for key in NormalizeSettings.model_fields}
    return Metadata(
        targets=targets, network=network, normalize=NormalizeSettings(**normalize), predict=predict, data="0" * 64
    )
