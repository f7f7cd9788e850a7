"""End-to-end points that nothing was fitted to."""

import numpy as np

from rota.cost.validation import MEASURED, validate


def test_prefill_of_yi_34b_is_predicted_within_the_error_it_had_when_measured():
    points = validate()
    assert [(p.tokens, p.measured) for p in points] == list(MEASURED)
    errors = np.array([p.error for p in points])
    assert np.abs(errors).max() < 0.22
    assert np.abs(errors).mean() < 0.12
