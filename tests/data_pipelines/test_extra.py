"""Libraries of an extra, there or not."""

import json

import pytest

from data_pipelines import extra
from data_pipelines.errors import InputError


def test_what_is_there_is_imported():
    assert extra.load("json", "audio") is json


def test_what_is_missing_is_named_with_its_install_command():
    with pytest.raises(InputError, match=r"^this needs nowhere: run pip install 'mmcl\[audio\]'$"):
        extra.load("nowhere", "audio")
