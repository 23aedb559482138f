"""The files for those who cite, license and change saemake agree with the package."""

import tomllib

import yaml
from conftest import PROJECT

import saemake


def test_citation_license_and_package_agree():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == saemake.__version__
    assert citation["license"] == project["license"] == "MIT"
    (author,) = (each["name"] for each in citation["authors"])
    for file in project["license-files"]:
        text = (PROJECT / file).read_text()
        assert text.startswith("MIT License")
        assert author in text


def test_the_changelog_has_a_place_for_what_comes():
    assert "\n## [Unreleased]\n" in (PROJECT / "CHANGELOG.md").read_text()
