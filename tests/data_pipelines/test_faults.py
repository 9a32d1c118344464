"""A fault goes from worker to worker as it is."""

import pickle

from data_pipelines.faults import Fault


def test_a_fault_keeps_kind_and_reason_through_a_pickle():
    found = pickle.loads(pickle.dumps(Fault("nan_audio", "some samples are NaN")))
    assert (found.kind, found.reason) == ("nan_audio", "some samples are NaN")
