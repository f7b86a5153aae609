# Sourced by every launcher: the project's folder, its Python, and a C allocator that keeps large blocks.
# Without the last, each large tensor is mapped and unmapped again; a full softmax takes 1.5 to 2 times as long.
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="$ROOT/.venv/bin/python"
if [ ! -x "$PYTHON" ]; then
  bash "$ROOT/scripts/setup.sh"
fi
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 MALLOC_TOP_PAD_=268435456
# A thread that waits for the other one gives its core away soon: on a busy machine spinning is many times slower.
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-10000}"
# What a launcher says that was given no flags: its path in the project, and the flags that it chose.
say_demonstration() {
  printf 'No flags were given. This is a demonstration of about two minutes; --help lists all flags. It is:\nbash %s\n' "$*" >&2
}
