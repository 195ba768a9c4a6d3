"""The run-time checker of annotations that tests/conftest.py installs."""

import beartype

# An int is welcome where a float is asked for, as in every type checker.
checked = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
