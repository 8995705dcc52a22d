# Sourced by debian/build and tests/reproducible, in the repository's root: builds the
# release binary so that the same source and toolchain give the same bytes, wherever the
# source lies. What names a place on the builder's machine is given another name: paths of
# our code and of the libraries, in Rust and in their C.

release_build() { # release_build [ARGUMENTS OF cargo build...]
    local map flags="" cflags="" cargo_home
    cargo_home=$(cd "${CARGO_HOME:-$HOME/.cargo}" && pwd)
    for map in "$cargo_home=/cargo" "$PWD=/holdfast"; do
        case $map in *" "*) echo "release: no build below a path with a space" >&2; return 64 ;; esac
        flags+=" --remap-path-prefix=$map"
        cflags+=" -ffile-prefix-map=$map"
    done
    # The last change of the source; without a repository, none is said.
    local epoch
    epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
    SOURCE_DATE_EPOCH=$epoch CARGO_INCREMENTAL=0 \
        RUSTFLAGS="${RUSTFLAGS-}$flags" CFLAGS="${CFLAGS-}$cflags" CXXFLAGS="${CXXFLAGS-}$cflags" \
        cargo build --locked --profile release --bin holdfast "$@"
}
