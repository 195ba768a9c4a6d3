"""Tasks under test keep their caches to themselves."""

import pytest


@pytest.fixture(autouse=True, scope='session')
def own_cache(tmp_path_factory):
  """Points the disk cache at an empty folder for all tests."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('LOOPFORMER_CACHE', str(tmp_path_factory.mktemp('cache')))
    yield
