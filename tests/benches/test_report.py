"""The results of several runs, and their tables."""

import json
from pathlib import Path

from benches.pairing import Figure, Pair
from benches.report import Results, Run, markdown


def pair(what: str, ratio: float, wanted: float | None = None) -> Pair:
    """A pair with this ratio."""
    return Pair(what, "ours", "theirs", 1, [1.0], [ratio], wanted)


def test_a_part_that_is_measured_again_replaces_its_results(tmp_path: Path) -> None:
    results = Results()
    results.take("one", [pair("a", 1.0), pair("b", 1.0), Figure("c", 1.0, "s")])
    results.take("other", [pair("d", 1.0)])
    results.missing["one"] = ["e"]
    results.runs["one"] = Run("2020-01-01", 1.0, 0.5)
    results.write(tmp_path / "table.json")
    again = Results.read(tmp_path / "table.json")
    assert again == results
    new = pair("a", 2.0)
    again.take("one", [new])
    again.drop_others("one", [new])
    assert [(one.what, one.ratios()) for one in again.pairs] == [("d", [1.0]), ("a", [2.0])]
    assert again.figures == []


def test_results_without_parts_are_kept(tmp_path: Path) -> None:
    results = Results()
    results.take("one", [pair("a", 1.0)])
    path = tmp_path / "table.json"
    results.write(path)
    found = json.loads(path.read_text())
    del found["runs"], found["pairs"][0]["part"]
    found["missing"] = ["a peer"]
    path.write_text(json.dumps(found))
    again = Results.read(path)
    again.drop_others("one", [])
    assert [one.what for one in again.pairs] == ["a"]
    assert "- not measured: a peer\n" in markdown(again)


def test_a_missed_target_is_explained_by_a_measurement() -> None:
    def timed(theirs: str, ours_ns: float, theirs_ns: float, wanted: float | None) -> Pair:
        what = "P2M, 64g, sequential"
        return Pair(what, "resolve", theirs, 1, [ours_ns], [theirs_ns], wanted)

    results = Results()
    results.take(
        "resolving",
        [
            timed("numpy take", 2.0, 3.0, 2.0),
            timed("a copy of the pfns", 2.0, 2.5, None),
            pair("met", 3.0, wanted=2.0),
            pair("unexplained", 1.0, wanted=2.0),
        ],
    )
    text = markdown(results).split("## Missed targets")[1].split("##")[0]
    # A copy takes 2.5 ns, so that nothing can be faster than 1.2 times numpy's 3 ns.
    why = "a copy of the batch, without any lookup, would be 1.2x"
    assert f"| P2M, 64g, sequential: resolve | numpy take | 2x | 1.50x | {why} |\n" in text
    assert "| unexplained: ours | theirs | 2x | 1.00x |  |\n" in text
    assert "| met" not in text


def test_shapes_have_tables_by_order_and_peer() -> None:
    results = Results()
    results.take(
        "shapes",
        [
            pair("P2M shape: no extents, 64 GiB, random", 1.0, wanted=1.5),
            pair("P2M shape: only extents, 64 GiB, random", 2.0, wanted=1.5),
            pair("P2M shape: only extents, 64 GiB, sequential", 1.0),
        ],
    )
    text = markdown(results)
    random, sequential = text.split("## P2Ms by shape, ")[1:]
    assert random.startswith("random: times as fast as theirs")
    assert "| no extents, 64 GiB | 1.00 (!) |\n| only extents, 64 GiB | 2.00 |\n" in random
    assert "| only extents, 64 GiB | 1.00 |\n" in sequential
    assert "Ratios with a target" not in text
