"""Script, style and markup fit each other; what they do is tested in the pages that have them."""

from __future__ import annotations

import re

from dvmsr import viewer


def test_the_pictures_are_in_the_section() -> None:
    page = viewer.markup('<div id="pictures">$here</div>')
    assert page.startswith('<section id="viewer"') and page.endswith("</section>")
    assert '<div id="pictures">$here</div>' in page


def test_the_script_finds_all_that_it_looks_for() -> None:
    page = viewer.markup('<div id="pictures"></div>')
    wanted = set(re.findall(r'byId\("([\w-]+)"\)', viewer.script()))
    assert wanted and wanted <= set(re.findall(r'id="([\w-]+)"', page))


def test_no_script_or_style_is_in_the_markup() -> None:
    page = viewer.markup("")
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", page)


def test_there_are_colours_for_light_and_dark() -> None:
    light, dark = viewer.style().split("@media (prefers-color-scheme: dark)")[:2]
    names = set(re.findall(r"(--\w+):", light))
    assert names and names == set(re.findall(r"(--\w+):", dark.partition("}")[0]))
