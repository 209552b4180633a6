import gc
import weakref

import pytest

from dotbias.cli.console import logs
from dotbias.cli.console.logs import silent_imports


class _Node:
    """Can be garbage that only a collection finds."""


@pytest.mark.parametrize("verbose", [False, True])
def test_an_import_is_not_disturbed_by_collections_and_what_it_made_stays(verbose):
    gc.unfreeze()
    logs._keep_what_is_imported.cache_clear()
    try:
        with silent_imports(verbose):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
        # At a later import there may be garbage, which would stay too. The count says nothing of it: it falls whenever
        # something that was frozen is no longer referred to.
        with silent_imports(verbose):
            garbage = _Node()
            garbage.itself = garbage
            is_alive = weakref.ref(garbage)
            del garbage
            assert is_alive() is not None
        gc.collect()
        assert is_alive() is None
    finally:
        gc.unfreeze()


def test_an_import_that_fails_turns_collections_on_again():
    with pytest.raises(ImportError), silent_imports(verbose=False):
        raise ImportError
    assert gc.isenabled()
