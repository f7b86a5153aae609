# The commands of README.md by short names.
.PHONY: setup test quickstart

setup:
	bash scripts/setup.sh

test:
	bash scripts/test.sh

quickstart:
	bash scripts/quickstart.sh
