"""Web pages as a browser shows them, and no more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lite.library.html import split_html


def text_of(page: str | bytes) -> str:
    """Titles and texts of all parts."""
    return "\n".join(f"{part.title}\n{part.text}" for part in split_html(page))


def test_comments_doctype_and_instructions_are_no_text() -> None:
    found = text_of("<!DOCTYPE html><?php secret() ?><!-- old price 99 --><p>New <!-- inner -->price 12.</p>")
    assert found.strip() == "New price 12."


def test_what_a_browser_hides_is_left_out() -> None:
    page = """<style>
        .spam, #menu { display: none } /* .shown { display: none } */
        @media print { .shown { display: none } }
        </style>
        <p hidden>one</p><p style="color: red; DISPLAY : none">two</p><div style="visibility:hidden">three</div>
        <template>four</template><p class="big spam">five</p><nav id="menu">six</nav><dialog>seven</dialog>
        <input type="hidden" value="eight"><noscript>nine</noscript><script>ten</script>
        <p class="shown">Shown.</p><dialog open>Open.</dialog>"""
    assert text_of(page).split() == ["Shown.", "Open."]


def test_text_behind_hidden_and_commented_elements_stays() -> None:
    assert text_of("<p>a<b hidden>x</b> b<!-- y --> c<script>z</script> d</p>").split() == ["a", "b", "c", "d"]


def test_the_title_stands_above_the_headings() -> None:
    (part,) = split_html("<title>Pump\n manual</title><h2>Oil</h2><p>Use 5W-30.</p>")
    assert (part.title, part.text) == ("Pump manual > Oil", "Use 5W-30.")


def test_a_page_that_a_script_fills_gives_its_description_or_title() -> None:
    page = '<title>Shop</title><meta name="Description" content="Spare parts."><div id="app"></div>'
    (part,) = split_html(page)
    assert (part.title, part.text) == ("Shop", "Spare parts.")
    assert [part.text for part in split_html("<title>Shop</title><div></div>")] == ["Shop"]


def test_what_stands_for_a_picture_and_in_fields_is_text() -> None:
    found = text_of(
        '<p>See <img src="a.png" alt="wiring of relay K7">.</p><area alt="north wing">'
        '<input value="4711"><input placeholder="Your name"><input type="password" value="hunter2"><img src="b.png">'
    )
    assert all(text in found for text in ("See wiring of relay K7", "north wing", "4711", "Your name"))
    assert "hunter2" not in found


def test_a_picture_in_a_cell_is_text_of_the_cell() -> None:
    found = text_of('<table><tr><th>part<th>state<tr><td>K7<td><img alt="broken"></table>')
    assert "| K7 | broken |" in found


def test_lines_of_listings_stay_and_others_flow() -> None:
    page = "<p>Run\n   this:</p><pre>for x in y:\n    print(x)\n\ndone</pre><p>a<br>b</p><textarea>c\nd</textarea>"
    lines = text_of(page).splitlines()
    assert all(line in lines for line in ("Run this:", "for x in y:", "    print(x)", "done", "a", "b", "c", "d"))


def test_numbered_lists_keep_their_numbers() -> None:
    found = text_of("<ol start=3><li>cut<li>weld<ul><li>twice</ul><li value=9>paint</ol><ul><li>rest</ul>")
    assert found.split() == "3. cut 4. weld - twice 9. paint - rest".split()


def test_paragraphs_of_items_stand_beside_their_markers() -> None:
    lines = text_of(
        "<ol><li><p>cut</p><p>slowly</p></li>\n<li>\n<div>weld</div></li><li></li><li>paint</ol>"
    ).splitlines()
    assert [line for line in lines if line] == ["1. cut", "slowly", "2. weld", "3.", "4. paint"]


def test_headings_without_text_below_do_not_vanish() -> None:
    assert "Emergency exit: door B" in text_of("<h1>Plan</h1><h2>Emergency exit: door B</h2>")


def test_layout_tables_are_read_as_text_and_long_cells_to_their_end() -> None:
    long = "word " * 400
    news = text_of(f"<table><tr><td><h2>News</h2><p>{long}lastword</p><td><p>Side.</p></table>")
    assert "lastword" in news
    assert "|" not in news
    cells = text_of(f"<table><tr><th>id<th>note<tr><td>1<td>{long}lastword<tr><td>2<td>b</table>")
    assert "lastword" in cells


def test_captions_and_spans_of_tables() -> None:
    found = text_of(
        "<table><caption>Torque</caption><tr><th rowspan=2>bolt<th colspan=2>Nm<tr><th>dry<th>wet"
        "<tr><td>M8<td>25<td>20</table>"
    )
    assert "Torque" in found
    assert "bolt" in found
    assert "| M8 | 25 | 20 |" in found


def test_the_encoding_that_a_page_declares_is_used() -> None:
    for head in (
        '<meta charset="windows-1251">',
        '<meta http-equiv="Content-Type" content="text/html; charset=cp1251">',
    ):
        assert "Насос" in text_of(f"{head}<p>Насос</p>".encode("cp1251"))
    assert "Größe" in text_of('<meta charset="ascii"><p>Größe</p>'.encode())


def test_deep_nesting_ends_and_empty_pages_give_nothing() -> None:
    assert "deep" in text_of("<div>" * 200 + "deep" + "</div>" * 200)
    parts = list(split_html("<p>Above.</p>" + "<div>" * 100_000 + "lost" + "</div>" * 100_000))
    assert parts[0].text == "Above."
    assert "lost" in parts[-1].text or "nested too deeply" in parts[0].note
    for page in ("", " \n", "<!-- only -->", "\0"):
        assert list(split_html(page)) == []


@given(st.lists(st.from_regex(r"[a-z]{3,9}", fullmatch=True), min_size=1, max_size=20))
def test_every_word_that_is_seen_is_in_some_part(words: list[str]) -> None:
    tags = ("p", "li", "h2", "b", "pre", "td", "blockquote", "summary")
    page = "".join(f"<{tags[n % 8]}>{word}</{tags[n % 8]}>\n" for n, word in enumerate(words))
    found = text_of(page)
    assert all(word in found for word in words)
