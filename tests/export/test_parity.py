"""How decisions are counted: equal labels, spans found by one side, ties, few rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from export import parity
from tf_pipeline.tasks import classify, mlm, tag

INT8, FLOAT32 = parity.TOLERANCES["int8"], parity.TOLERANCES["float32"]


def flipped(rows: int, wrong: int) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Give records, and outputs of which the second ones decide `wrong` rows otherwise."""
    expected = np.tile([0.9, 0.1], (rows, 1))
    actual = expected.copy()
    actual[:wrong] = [0.1, 0.9]
    return ([{"text": "a", "label": "no"}] * rows, {"probabilities": expected},
            {"probabilities": actual})


@pytest.mark.parametrize(("rows", "wrong", "spare", "ok"), [
    (100, 1, 0, True), (100, 2, 0, False), (100, 3, 2, True), (100, 4, 2, False),
    (20, 2, 2, True), (20, 3, 2, False)])
def test_a_share_and_a_few_decisions_more_may_differ(rows: int, wrong: int, spare: int,
                                                     ok: bool) -> None:
    task = classify.Task(("no", "yes"), classify.Options())
    verdict = parity.compare(task, *flipped(rows, wrong), replace(INT8, spare=spare), scored=False)
    assert verdict.ok is ok
    assert verdict.agreement == pytest.approx(1 - wrong / rows)
    assert ok or f"{wrong} of {rows} decisions differ" in verdict.reasons[0]


def test_float32_may_never_decide_otherwise() -> None:
    task = classify.Task(("no", "yes"), classify.Options())
    verdict = parity.compare(task, *flipped(1000, 1), FLOAT32, scored=False)
    assert any("decisions differ" in reason for reason in verdict.reasons)


def test_perplexity_may_rise_by_one_percent_and_the_best_piece_change() -> None:
    task = mlm.Task((), mlm.Options())
    record = {"text": "[MASK]", "masked": ["a"]}
    # Columns: log of the sum, the target's logit, the two best ones'; ids of target and best.
    expected = {"logits": np.tile([1.0, -1.0, 0.5, 0.49], (10, 1, 1)),
                "pieces": np.tile([7, 3, 4], (10, 1, 1))}
    for rise, moved, ok in ((0.009, 2, True), (0.011, 0, False), (0.0, 3, False)):
        actual = {name: values.copy() for name, values in expected.items()}
        actual["logits"][..., 1] -= rise
        actual["pieces"][:moved, 0, 1] = 4
        verdict = parity.compare(task, [record] * 10, expected, actual,
                                 parity.tolerance_of(task, "int8"))
        assert verdict.ok is ok, verdict.reasons
        assert verdict.differences == {"logits": pytest.approx(rise)}  # of ids there is none
    assert parity.tolerance_of(task, "float32").agreement == 1.0


def test_ties_may_fall_either_way() -> None:
    task = classify.Task(("no", "yes"), classify.Options())
    near, other = np.array([[0.50001, 0.49999]]), np.array([[0.49999, 0.50001]])
    verdict = parity.compare(task, [{"text": "a"}], {"probabilities": near},
                             {"probabilities": other}, FLOAT32, scored=False)
    assert verdict.agreement == 1.0


def test_spans_count_one_by_one() -> None:
    task = tag.Task(("O", "B-PER", "I-PER"), tag.Options())
    expected = np.tile([9.0, 0.0, 0.0], (1, 40, 1))
    expected[0, ::2] = [0.0, 9.0, 0.0]  # 20 names of one word
    actual = expected.copy()
    actual[0, 0] = [9.0, 0.0, 0.0]  # one is lost, 19 stay
    record = {"tokens": ["a"] * 40, "tags": ["B-PER", "O"] * 20}
    verdict = parity.compare(task, [record], {"logits": expected}, {"logits": actual}, INT8,
                             scored=False)
    assert verdict.agreement == pytest.approx(2 * 19 / (20 + 19))
