from __future__ import annotations

import json

from ctr.cli.output import print_json, table


def test_a_table_has_dockers_gutter_and_no_trailing_space():
    assert table(("NAME", "ID"), [("a", "1"), ("longer", "")]) == (
        "NAME     ID\n"
        "a        1\n"
        "longer\n"
    )  # fmt: skip


def test_a_table_without_rows_is_its_header():
    assert table(("NAME", "ID"), []) == "NAME   ID\n"


def test_control_characters_do_not_reach_the_terminal():
    assert "\x1b" not in table(("NAME",), [("\x1b[31mred\n",)])


def test_json(capsys):
    print_json([{"a": 1}])
    assert json.loads(capsys.readouterr().out) == [{"a": 1}]
