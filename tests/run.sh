#!/usr/bin/env bash
# Every check of the project. `--full` has the counts that a release needs; without it, those for every change.
#
# On a fresh machine it installs what it can (rustfmt and clippy, through rustup) and says what else to install.
set -euo pipefail
export LC_ALL=C
# A part of the suites is no proof.
unset S2_CONFORMANCE
# A machine that builds once and from nothing gains nothing by what speeds up the next build, and it fills its disk.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
cd "$(dirname "$0")/.."

case "${1:-}" in
  "") ;;
  --full) export S2_FULL=1 ;;
  *) echo "usage: tests/run.sh [--full]" >&2; exit 2 ;;
esac

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }

step "tools"
command -v cargo >/dev/null || fail "cargo is missing: install Rust 1.95 or newer from https://rustup.rs"
command -v cc >/dev/null || fail "a C linker is missing: install gcc or clang (Debian: apt-get install gcc libc6-dev)"
for component in rustfmt clippy; do
  cargo "${component/rust/}" --version >/dev/null 2>&1 || rustup component add "$component" ||
    fail "$component is missing: rustup component add $component"
done
if ! command -v redis-server >/dev/null; then
  echo "installing redis-server, on which the tests of the Redis backend run"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    (apt-get update -qq && apt-get install -y -qq redis-server) >/dev/null 2>&1 || true
  fi
  command -v redis-server >/dev/null ||
    fail "redis-server is missing: install version 7.0 or newer (Debian: apt-get install redis-server)"
fi
redis-server --version
cargo --version
if [ -z "${S2_DATA:-}" ]; then
  echo "S2_DATA is not set: no external data, so tests on it check nothing"
elif [ ! -d "$S2_DATA" ]; then
  fail "S2_DATA names $S2_DATA, which is no folder"
fi

step "format"
cargo fmt --all --check

step "clippy"
cargo clippy --workspace --all-targets --all-features --locked --quiet -- -D warnings

step "tests, all features"
cargo test --workspace --all-features --quiet

step "examples over several processes"
# A server of its own; it ends with this script.
port=$((20000 + $$ % 10000))
redis-server --port "$port" --bind 127.0.0.1 --save "" --appendonly no --dir "${TMPDIR:-/tmp}" >/dev/null &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
log=$(mktemp)
on_redis() { # the example, and what it says when all is well
  cargo run --quiet --example "$1" --features redis -- --redis "redis://127.0.0.1:$port" >"$log" 2>&1 ||
    { cat "$log"; fail "example $1 on Redis"; }
  grep "$2" "$log" || { cat "$log"; fail "example $1 on Redis did not finish its work"; }
}
on_redis event_bus "has one report"
on_redis deadlock "1 of 4 went on without what it waited for; 0 tasks are left"
on_redis gang_up "holds: blocked-killed: the blocker is solved"
rm -f "$log"
kill "$server"

# Published crates must build with nothing, and with each feature alone.
crates=$(sed -n 's/^members = \[\(.*\)\]/\1/p' Cargo.toml | tr -d '",' | tr ' ' '\n' | grep '^s2-')
[ -n "$crates" ] || fail "no crates found in Cargo.toml"
for crate in $crates; do
  features=$(awk '/^\[features\]/ {on = 1; next} /^\[/ {on = 0} on && /^[a-z]/ && $1 != "default" {print $1}' "$crate/Cargo.toml")
  step "$crate without features"
  cargo clippy -p "$crate" --no-default-features --quiet -- -D warnings
  for feature in $features; do
    step "$crate with $feature alone"
    cargo clippy -p "$crate" --no-default-features --features "$feature" --quiet -- -D warnings
  done
done

step "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps --quiet

step "examples"
examples=
# Those that pull a lot are packages of their own.
for manifest in examples/Cargo.toml examples/*/Cargo.toml; do
  found=$(awk '/^\[/ {on = ($0 == "[[example]]")} on && /^name = / {gsub(/"/, "", $3); print $3}' "$manifest")
  [ -n "$found" ] || fail "no examples found in $manifest"
  examples="$examples $found"
done
for example in $examples; do
  log=$(mktemp)
  cargo run --quiet --example "$example" >"$log" 2>&1 || { cat "$log"; fail "example $example"; }
  [ -s "$log" ] || fail "example $example printed nothing"
  echo "$example: $(wc -l <"$log") lines"
  rm -f "$log"
done

step "dependencies"
# Light by default: what s2-coordinator pulls without features is listed, so that it grows on purpose only.
host=$(rustc -vV | sed -n 's/^host: //p')
tree=$(cargo tree -p s2-coordinator --no-default-features -e normal --prefix none --format '{p}' --target x86_64-unknown-linux-gnu)
awk '{print $1}' <<<"$tree" | sort -u | grep -v '^s2-' | diff tests/dependencies.txt - ||
  fail "the dependencies of s2-coordinator changed: mend that, or say so in tests/dependencies.txt"
licences=$(cargo tree --workspace --all-features --prefix none --format '{l}:' --target "$host" | grep . |
  sed 's/:\( (\*)\)\{0,1\}$//' | sort -u)
while read -r licence; do
  grep -qxF "$licence" tests/licences.txt || fail "licence '$licence' is not in tests/licences.txt"
done <<<"$licences"
if command -v cargo-deny >/dev/null; then
  cargo deny --log-level error check bans licenses sources
else
  echo "cargo-deny is not installed, so deny.toml was not checked by it: cargo install --locked cargo-deny"
fi

step "all checks passed"
