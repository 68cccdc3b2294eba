"""How texts are shown in Markdown."""

import pytest

from causal_lm_router.evaluation.formatting import escape_markdown, markdown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("![x](https://a.b/p.png)", r"![x\](https\://a.b/p.png)"),
        ("[x](b) [x][y] [x]: z", r"[x\](b) [x\][y] [x\]: z"),
        ("`rm` $a_1$ ~b~ &lt;", r"\`rm\` \$a_1\$ \~b\~ \&lt;"),
        ("_a_ __b__ lora.lora_r", r"\_a\_ \_\_b\_\_ lora.lora_r"),
        ("<b>|*c*\\", r"\<b>\|\*c\*\\"),
        ("0.5 [0.4, 0.6]", "0.5 [0.4, 0.6]"),
        ("two\nlines\x1b", r"two lines\\x1b"),
    ],
)
def test_nothing_in_a_text_is_markdown(text: str, escaped: str) -> None:
    assert escape_markdown(text) == escaped
    assert markdown([{text: text}]) == f"| {escaped} |\n| --- |\n| {escaped} |"
