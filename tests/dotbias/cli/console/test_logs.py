import gc

import pytest

from dotbias.cli.console import logs
from dotbias.cli.console.logs import silent_imports


@pytest.mark.parametrize("verbose", [False, True])
def test_an_import_is_not_disturbed_by_collections_and_what_it_made_stays(verbose):
    gc.unfreeze()
    logs._keep_what_is_imported.cache_clear()
    try:
        with silent_imports(verbose):
            assert not gc.isenabled()
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > 0
        # At a later import there may be garbage, which would stay too.
        with silent_imports(verbose):
            pass
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()


def test_an_import_that_fails_turns_collections_on_again():
    with pytest.raises(ImportError), silent_imports(verbose=False):
        raise ImportError
    assert gc.isenabled()
