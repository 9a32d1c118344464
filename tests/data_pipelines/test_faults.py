import pickle

from data_pipelines.faults import Fault


def test_a_fault_says_kind_and_reason_and_crosses_processes():
    fault = pickle.loads(pickle.dumps(Fault("missing_file", "a.jpg is missing")))
    assert (fault.kind, fault.reason) == ("missing_file", "a.jpg is missing")
    assert str(fault) == "missing_file: a.jpg is missing"
