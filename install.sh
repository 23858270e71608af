#!/bin/sh
# Builds Ringway, puts it in place, and takes it away again. docs/installing.md says why it is made so.
set -eu
umask 022
LC_ALL=C
export LC_ALL

usage() {
    cat <<'END'
Usage:
  ./install.sh build [--profile NAME]  build with cargo, and lay out what is to be installed; as yourself, not as root
  ./install.sh install [OPTIONS]       put it in place
  ./install.sh uninstall [OPTIONS]     take away what `install` put there, and nothing else
  ./install.sh archive                 after `build`: pack it as a release, which installs on a machine without Rust

Options:
  --prefix DIR    where to: /usr/local by default; for one user for example ~/.local
  --libdir DIR    libraries and pkg-config file (PREFIX/lib)
  --unitdir DIR   systemd unit (PREFIX/lib/systemd/system)
  --from DIR      install what lies there instead of what `build` made
  --destdir DIR   put everything below DIR, as for a package; $DESTDIR is the same
  --dry-run       check, and say what would be done
  --force         overwrite files that are not ours, or that were changed
  --profile NAME  cargo profile to build (release)
END
}

say() { printf '%s\n' "$*"; }
warn() { printf 'install.sh: %s\n' "$*" >&2; }
die() {
    warn "$*"
    exit 1
}
misuse() {
    warn "$*; see ./install.sh --help"
    exit 2
}

TAB="$(printf '\t')"
here="$(cd "$(dirname "$0")" && pwd)"
prefix=/usr/local libdir='' unitdir='' from='' destdir="${DESTDIR:-}" profile=release
dry='' force='' command=''

# absolute NAME PATH: the path without slashes at its end, if it may stand in the files that we write.
absolute() {
    case "$2" in
        */../* | */..) misuse "$1 $2: without .., please" ;;
        /*[!A-Za-z0-9/._+~=:,-]*) misuse "$1 $2: only letters, digits and /._+~=:,- are possible" ;;
        /*) ;;
        *) misuse "$1 $2: must begin with /" ;;
    esac
    path="$(printf '%s' "$2" | sed 's|//*|/|g; s|/$||')"
    [ -n "$path" ] || misuse "$1 /: not possible, use /usr"
    printf '%s' "$path"
}

while [ $# -gt 0 ]; do
    option="$1" value=''
    case "$option" in
        --prefix | --libdir | --unitdir | --from | --destdir | --profile)
            [ $# -ge 2 ] || misuse "$option needs a value"
            value="$2"
            shift
            ;;
        --*=*) value="${option#*=}" option="${option%%=*}" ;;
    esac
    case "$option" in
        --prefix) prefix="$value" ;;
        --libdir) libdir="$value" ;;
        --unitdir) unitdir="$value" ;;
        --from) from="$value" ;;
        --destdir) destdir="$value" ;;
        --profile) profile="$value" ;;
        --dry-run) dry=1 ;;
        --force) force=1 ;;
        -h | --help | help)
            usage
            exit 0
            ;;
        build | install | uninstall | archive)
            [ -z "$command" ] || misuse "one of $command and $option"
            command="$option"
            ;;
        *) misuse "unknown: $option" ;;
    esac
    shift
done
[ -n "$command" ] || {
    usage >&2
    exit 2
}

# ---- build ----

# The layout of a release: bin, libexec, lib, include, share, this script, and the file VERSION.
layout() {
    if [ -f "$here/VERSION" ]; then
        printf '%s' "$here"
        return
    fi
    printf '%s/ringway-%s-%s-linux' "$target" "$(source_version)" "$(uname -m)"
}

source_version() { sed -n 's/^version = "\(.*\)"$/\1/p' "$here/Cargo.toml" | head -n 1; }

target="${CARGO_TARGET_DIR:-$here/target}"
case "$target" in /*) ;; *) target="$PWD/$target" ;; esac

build() {
    [ -f "$here/Cargo.toml" ] || die "this is a release, there is nothing to build: ./install.sh install"
    command -v "${CARGO:-cargo}" >/dev/null || die "cargo is not there: install Rust 1.88 or later, https://rustup.rs"
    (cd "$here" && "${CARGO:-cargo}" build --profile "$profile" --target-dir "$target" \
        -p ringway-apps -p ringwayd -p ringway-capi)
    case "$profile" in dev) built="$target/debug" ;; *) built="$target/$profile" ;; esac
    stage="$(layout)"
    rm -rf "$stage"
    mkdir -p "$stage/bin" "$stage/libexec" "$stage/lib" "$stage/share/man" "$stage/share/doc/ringway/docs"
    cp "$built/ringway" "$built/pkt-gen" "$stage/bin"
    cp "$built/ringwayd" "$stage/libexec"
    cp "$built/libnetmap.so" "$built/libnetmap.a" "$stage/lib"
    # Names of functions stay, for backtraces; what only debuggers read is most of the size.
    if command -v strip >/dev/null; then
        strip --strip-debug "$stage"/bin/* "$stage"/libexec/* "$stage"/lib/*
    fi
    cp -R "$here/crates/capi/include" "$stage"
    cp "$here/packaging/netmap.pc.in" "$here/packaging/ringway.service.in" "$stage/lib"
    "$built/ringway" pages "$stage/share"
    for page in "$here"/packaging/man/*.[1-8]; do
        mkdir -p "$stage/share/man/man${page##*.}"
        cp "$page" "$stage/share/man/man${page##*.}"
    done
    cp "$here"/README.md "$here"/CHANGELOG.md "$here"/LICENSE-* "$here/packaging/ringway.toml" \
        "$here/packaging/ringway-device.conf" "$stage/share/doc/ringway"
    cp "$here"/docs/*.md "$stage/share/doc/ringway/docs"
    cp "$here/install.sh" "$stage"
    source_version >"$stage/VERSION"
    say "built: $stage"
}

archive() {
    stage="$(layout)"
    [ -f "$stage/VERSION" ] && [ -f "$here/Cargo.toml" ] || die "nothing is built: ./install.sh build"
    tar -C "$(dirname "$stage")" --owner=0 --group=0 --numeric-owner -czf "$stage.tar.gz" "$(basename "$stage")"
    say "packed: $stage.tar.gz"
}

# ---- install and uninstall ----
#
# The manifest has a line per file, `file SHA256 PATH`, and a line per folder that was not there before,
# `dir PATH`, without DESTDIR. It is written before the files with what was and what will be, so that an installation that
# was cut off can be repeated or taken away; a path may then have several sums.

sum() { sha256sum <"$1" | cut -d ' ' -f 1; }

# ours PATH SUM: true if the manifest knows a file of that path and content.
ours() { grep -qxF "file $2 $1" "$work/old"; }

# known PATH: true if the manifest knows a file of that path.
known() { awk -v p="$1" '$1 == "file" && $3 == p { found = 1 } END { exit !found }' "$work/old"; }

cleanup() {
    rm -rf "$work"
    [ -z "$unfinished" ] || rm -f "$unfinished"
}

prepare() {
    prefix="$(absolute --prefix "$prefix")"
    libdir="$(absolute --libdir "${libdir:-$prefix/lib}")"
    unitdir="$(absolute --unitdir "${unitdir:-$prefix/lib/systemd/system}")"
    case "$destdir" in '' | /*) ;; *) destdir="$PWD/$destdir" ;; esac
    destdir="${destdir%/}"
    manifest="$prefix/share/ringway/manifest"
    command -v sha256sum >/dev/null || die "sha256sum is not there"
    work="$(mktemp -d)"
    unfinished=''
    trap cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    : >"$work/old"
    if [ -e "$destdir$manifest" ]; then
        cat "$destdir$manifest" >"$work/old" || die "cannot read $destdir$manifest"
        if grep -qvE '^(#.*|file [0-9a-f]{64} /[^ ]+|dir /[^ ]+)$' "$work/old" || grep -q '/\.\./' "$work/old"; then
            die "$destdir$manifest is damaged; put it right or remove it"
        fi
    fi
}

# plan: one line per file in $work/plan: mode, source, place.
plan() {
    while IFS= read -r file; do
        mode=644 source="$from/$file"
        case "$file" in
            bin/*) mode=755 place="$prefix/$file" ;;
            libexec/*) mode=755 place="$prefix/$file" ;;
            lib/netmap.pc.in) place="$libdir/pkgconfig/netmap.pc" ;;
            lib/ringway.service.in) place="$unitdir/ringway.service" ;;
            lib/*) place="$libdir/${file#lib/}" ;;
            include/* | share/*) place="$prefix/$file" ;;
            *) continue ;;
        esac
        case "$file" in
            *.in)
                filled="$work/$(basename "$place")"
                sed "s|@PREFIX@|$prefix|; s|@LIBDIR@|$libdir|; s|@INCLUDEDIR@|$prefix/include|
                     s|@LIBEXECDIR@|$prefix/libexec|; s|@VERSION@|$version|" "$source" >"$filled"
                source="$filled"
                ;;
        esac
        printf '%s\t%s\t%s\n' "$mode" "$source" "$place"
    done <"$work/files" >"$work/plan"
}

# writable FOLDER: the nearest folder above that exists must be one, and ours to write to.
writable() {
    up="$1"
    while [ ! -e "$up/" ]; do
        [ ! -e "$up" ] && [ ! -L "$up" ] || die "$up is in the way: it is not a folder"
        up="$(dirname "$up")"
    done
    [ -w "$up" ] || die "no permission to write to $up: run it as root, or choose a --prefix of your own such as ~/.local"
}

# check: counts files that are in the way.
check() {
    in_the_way=0
    while IFS="$TAB" read -r mode source place; do
        there="$destdir$place"
        writable "$(dirname "$there")"
        [ -e "$there" ] || [ -L "$there" ] || continue
        if [ -d "$there" ] && [ ! -L "$there" ]; then
            die "$there is in the way: it is a folder"
        elif [ -L "$there" ] || [ ! -f "$there" ]; then
            why="it is not a plain file"
        elif ours "$place" "$(sum "$there")"; then
            continue
        elif known "$place"; then
            why="it was changed after it was installed"
        else
            why="Ringway did not install it"
        fi
        in_the_way=$((in_the_way + 1))
        warn "in the way: $there: $why"
    done <"$work/plan"
    if [ "$in_the_way" -gt 0 ] && [ -z "$force" ]; then
        die "nothing was changed. Choose another --prefix, or overwrite these $in_the_way files with --force"
    fi
}

# folders FOLDER: makes it and what is missing above it, and notes what was made.
folders() {
    [ ! -d "$destdir$1" ] || return 0
    folders "$(dirname "$1")"
    mkdir "$destdir$1"
    chmod 755 "$destdir$1"
    grep -qxF "dir $1" "$work/dirs" || printf 'dir %s\n' "$1" >>"$work/dirs"
}

# put MODE SOURCE PLACE: the file is at its place whole or not at all.
put() {
    folders "$(dirname "$3")"
    unfinished="$(dirname "$destdir$3")/.ringway-install.$$"
    cp "$2" "$unfinished"
    chmod "$1" "$unfinished"
    # A link to a folder would take the file in.
    [ ! -L "$destdir$3" ] || rm -f "$destdir$3"
    mv -f "$unfinished" "$destdir$3"
    unfinished=''
}

# note FILE...: the manifest is these lists, without doubles.
note() {
    {
        say "# What install.sh put here; ./install.sh uninstall --prefix $prefix takes it away."
        cat "$@" | grep -v '^#' | sort -u || :
    } >"$work/manifest"
    put 644 "$work/manifest" "$manifest"
}

# take PATH...: removes a file if it is as we put it.
take() {
    there="$destdir$1"
    if [ -L "$there" ] || { [ -e "$there" ] && [ ! -f "$there" ]; }; then
        warn "kept, it is not ours any more: $there"
    elif [ -f "$there" ]; then
        if ! ours "$1" "$(sum "$there")"; then
            warn "kept, it was changed after it was installed: $there"
        elif [ -n "$dry" ]; then
            say "would remove $there"
        else
            rm -f "$there"
        fi
    fi
}

refresh_linker() {
    [ -z "$destdir" ] && [ "$(id -u)" -eq 0 ] || return 0
    case "$libdir" in /usr/*) command -v ldconfig >/dev/null && ldconfig || : ;; esac
}

install_all() {
    [ -n "$from" ] || from="$(layout)"
    [ -f "$from/VERSION" ] || die "nothing is built in $from: ./install.sh build, as yourself"
    version="$(cat "$from/VERSION")"
    prepare
    (cd "$from" && find bin libexec lib include share -type f | sort) >"$work/files"
    plan
    check
    while IFS="$TAB" read -r mode source place; do
        printf 'file %s %s\n' "$(sum "$source")" "$place"
    done <"$work/plan" >"$work/new"
    # What an older version put and this one does not have.
    awk 'NR == FNR { new[$3] = 1; next } $1 == "file" && !($3 in new) && !seen[$3]++ { print $3 }' \
        "$work/new" "$work/old" >"$work/stale"
    grep '^dir ' "$work/old" >"$work/dirs" || :
    if [ -n "$dry" ]; then
        while IFS="$TAB" read -r mode source place; do
            say "would put $destdir$place, mode $mode"
        done <"$work/plan"
    else
        [ -z "$destdir" ] || mkdir -p "$destdir"
        folders "$(dirname "$manifest")"
        while IFS="$TAB" read -r mode source place; do folders "$(dirname "$place")"; done <"$work/plan"
        note "$work/old" "$work/new" "$work/dirs"
        while IFS="$TAB" read -r mode source place; do
            there="$destdir$place"
            if [ -f "$there" ] && [ ! -L "$there" ] && [ "$(sum "$source")" = "$(sum "$there")" ]; then
                chmod "$mode" "$there"
            else
                put "$mode" "$source" "$place"
            fi
        done <"$work/plan"
    fi
    while IFS= read -r place; do take "$place"; done <"$work/stale"
    [ -z "$dry" ] || return 0
    note "$work/new" "$work/dirs"
    refresh_linker
    say "Ringway $version is in $destdir$prefix: $(grep -c . "$work/new") files, listed in $destdir$manifest"
    case ":$PATH:" in *":$prefix/bin:"*) ;; *) say "PATH does not have $prefix/bin" ;; esac
}

uninstall_all() {
    prepare
    [ -e "$destdir$manifest" ] || die "nothing of ours is in $destdir$prefix: there is no $destdir$manifest. Another --prefix?"
    [ -w "$(dirname "$destdir$manifest")" ] || die "no permission to write to $destdir$prefix: run it as root"
    awk '$1 == "file" && !seen[$3]++ { print $3 }' "$work/old" >"$work/paths"
    while IFS= read -r place; do take "$place"; done <"$work/paths"
    [ -z "$dry" ] || return 0
    rm -f "$destdir$manifest"
    # The deepest first. Those that hold something of others stay.
    sed -n 's/^dir //p' "$work/old" | sort -r | while IFS= read -r dir; do
        rmdir "$destdir$dir" 2>/dev/null || :
    done
    refresh_linker
    say "Ringway is no longer in $destdir$prefix"
}

case "$command" in
    build) build ;;
    archive) archive ;;
    install) install_all ;;
    uninstall) uninstall_all ;;
esac
