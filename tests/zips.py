"""Zips, and files that are zips."""

import zipfile


def rewrite(path, member, data):
    """Write a zip again with other content for one member, or without it if that is None."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {member: data}).items():
            if content is not None:
                archive.writestr(name, content)
