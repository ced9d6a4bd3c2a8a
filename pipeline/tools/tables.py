"""Write docs/parameters.md, and the tables of results in README.md and the model card: `make tables`.

Parameters are described by the schema (ranges) and by params.yaml (defaults, and meanings, which are its comments).
Results are those in reports/. They replace what stands between `<!-- results:NAME -->` and `<!-- /results:NAME -->`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from pipeline import layout, params, stage
from pipeline.report.results import read_json
from pipeline.report.scores import score_rows

PARAMETERS = Path("docs/parameters.md")
RESULTS = {Path("README.md"): ("scores", "by_type"), Path("docs/model-card.md"): ("by_type",)}
HEAD = """# Parameters

All settings are in [params.yaml](../params.yaml), one section a stage. This page is written by `make tables`.

- A wrong name, type or value stops the stage with one line that names the key.
- A stage runs again only if a key changed that it uses. A new threshold in `evaluate` does not train again.
- The file is YAML 1.2: `1e-3` is a number. Aliases (`*name`) are not allowed.

[commands.md](commands.md#experiments) shows how to try a parameter."""


def main() -> None:
    """Write all pages, or none if one lacks a marker."""
    texts = {path: page(path) for path in (PARAMETERS, *RESULTS)}
    for path, text in texts.items():
        with fresh_file(path) as target:
            target.write_text(text, encoding="utf-8")
    print(f"wrote {', '.join(map(str, texts))}")


def page(path: Path) -> str:
    """Return the text of a page as it should be. Raises InputError that names a marker that it lacks."""
    if path == PARAMETERS:
        return parameters(layout.PARAMS.read_text(encoding="utf-8"))
    text = path.read_text(encoding="utf-8")
    for name in RESULTS[path]:
        text = filled(text, name, {"scores": score_table, "by_type": type_table}[name](), path)
    return text


def filled(text: str, name: str, table: str, path: Path) -> str:
    """Return the text of a page with a table between its markers."""
    start, end = f"<!-- results:{name} -->", f"<!-- /results:{name} -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(end) < text.index(start):
        raise InputError(f"{path}: needs {start} and, below it, {end}, once each")
    return f"{text.partition(start)[0]}{start}\n\n{table}\n\n{end}{text.partition(end)[2]}"


def markdown(rows: list[list[str]]) -> str:
    """Return a table in Markdown; the first row is its heading."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def score_table() -> str:
    """Return the scores of both splits, of the U-Net and of Otsu's threshold."""
    summary = read_json(layout.SCORES_FILE, "evaluate")
    rows = [["", *(cell for split in layout.SCORED_SPLITS for cell in (f"{split}: U-Net", "Otsu"))]]
    rows.append(["images", *(cell for split in layout.SCORED_SPLITS for cell in (str(summary[split]["n_images"]), ""))])
    for score, values in score_rows(summary):
        # Bounds stand behind their score; pooled pixels are in scores.json.
        if score.key.endswith(("_low", "_high")) or score.group == "pixel_pooled":
            continue
        cells = [_number(value) for value in values]
        for number, split in enumerate(layout.SCORED_SPLITS):
            low, high = (summary[split][score.group].get(f"{score.key}_{end}") for end in ("low", "high"))
            cells[2 * number] += f" ({_number(low)}–{_number(high)})" if low is not None else ""
        rows.append([score.name, *cells])
    return markdown(rows)


def type_table() -> str:
    """Return the mean scores of each image type, on both splits."""
    table = pd.read_csv(layout.BY_TYPE).set_index(["image_type", "split"])
    columns = {"n_images": "images", "ap50": "AP50", "iou": "pixel IoU", "dsb_score": "DSB score"}
    rows = [["image type", *(f"{split}: {name}" if name == "images" else name
                             for split in layout.SCORED_SPLITS for name in columns.values()), "Otsu"]]  # fmt: skip
    sizes = table.n_images.groupby("image_type").sum()
    for image_type in sorted(sizes.index, key=lambda name: (-sizes[name], name)):
        cells = [image_type]
        for split in layout.SCORED_SPLITS:
            values = table.loc[(image_type, split)] if (image_type, split) in table.index else {}
            images = f"{values['n_images']:.0f}" if len(values) else "–"
            cells += [images, *(_number(values.get(column)) for column in [*columns][1:])]
        rows.append([*cells, _number(values.get("otsu_dsb_score"))])
    return markdown(rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def parameters(text: str) -> str:
    """Return docs/parameters.md for the text of a params.yaml."""
    schema = params.Params.model_json_schema()
    parts, section = [HEAD], ""
    rows: list[list[str]] = []
    for key, value, meaning in keys(text):
        if key.split(".")[0] != section:
            parts += [markdown(rows)] if rows else []
            section = key.split(".")[0]
            says = " ".join(_resolved(schema["properties"][section], schema).get("description", "").split())
            parts.append(f"\n## {section}\n\n{says}\n")
            rows = [["key", "meaning", "values", "default"]]
        if value is not None:
            node = schema
            for name in key.split("."):
                node = _resolved(node["properties"][name], schema)
            name = key.partition(".")[2]
            rows.append([f"`{name}`", meaning.replace("|", "\\|"), allowed(node, schema), f"`{value}`"])
    return "\n".join([*parts, markdown(rows)]) + "\n"


def keys(text: str) -> list[tuple[str, str | None, str]]:
    """Return (key with dots, value or None for a section, comment) of a params.yaml, in its order."""
    rows, path, above = [], [], []
    for line in text.splitlines():
        if comment := re.match(r" +# (.*)", line):
            above.append(comment[1])
        elif entry := re.match(r"( *)(\w+):(?: +([^#\s][^#]*?))?(?: +# (.*))?$", line):
            indent, name, value, comment = entry.groups()
            path = [*path[: len(indent) // 2], name]
            rows.append((".".join(path), value, " ".join([*above, comment or ""]).strip()))
            above = []
    return rows


def allowed(node: Mapping, schema: Mapping) -> str:
    """Return the values that a node of a JSON schema allows."""
    node = _resolved(node, schema)
    if "anyOf" in node:
        return ", or ".join(allowed(part, schema) for part in node["anyOf"])
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if "prefixItems" in node:
        return f"[{', '.join(allowed(part, schema) for part in node['prefixItems'])}]"
    if node["type"] == "array":
        sizes = "".join(f", {word} {node[key]}" for key, word in (("minItems", "at least"), ("maxItems", "at most"))
                        if key in node)  # fmt: skip
        return f"a list{sizes}; each {allowed(node['items'], schema)}"
    if node["type"] in ("null", "boolean", "string"):
        return {"null": "`null`", "boolean": "`true`, `false`", "string": "a text"}[node["type"]]
    low = f"{node['minimum']:,}" if "minimum" in node else f"above {node['exclusiveMinimum']:,}"
    high = f"{node['maximum']:,}" if "maximum" in node else f"below {node['exclusiveMaximum']:,}"
    return f"{low} to {high}"


def _resolved(node: Mapping, schema: Mapping) -> Mapping:
    """Follow a reference of a JSON schema."""
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


if __name__ == "__main__":
    stage.run(main)
