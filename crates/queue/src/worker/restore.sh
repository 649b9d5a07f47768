# One restore. What comes before this line is in begin.sh.

find_borg
# Of those before this one nothing but secrets can be left.
if lock lock-restore restore; then
    rm -rf "$base"/restore-*
fi
job_dir=$base/restore-$repository_id-$job
error=$(mkdir "$job_dir" 2>&1) || fail client-cache "$error"
make_roads

# Nothing that the host's own borg or our backups have is used, and nothing of this stays.
BORG_BASE_DIR=$job_dir
BORG_CACHE_DIR=$job_dir/cache
BORG_SECURITY_DIR=$job_dir/security

# Where to. Not into anything that is there already, unless that is what was asked for; and nobody else looks into it.
case "$place" in
new)
    [ -n "${HOME:-}" ] || fail client-permission "the client's user has no home directory"
    target=$HOME/$new_directory
    [ -n "$again" ] && [ -d "$target" ] && [ ! -L "$target" ] || error=$(mkdir -m 700 "$target" 2>&1) || fail client-permission "$error"
    ;;
directory)
    if [ -d "$target" ]; then
        found=$(ls -A "$target" 2>&1) || fail client-permission "$found"
        [ -z "$found" ] || [ -n "$again" ] || fail target-not-empty "$target on the client is not empty"
    elif [ -e "$target" ] || [ -L "$target" ]; then
        fail target-not-empty "$target on the client is no directory"
    fi
    error=$(mkdir -p "$target" 2>&1) || fail client-permission "$error"
    error=$(chmod 700 "$target" 2>&1) || fail client-permission "$error"
    ;;
in-place) target=/ ;;
*) exit 1 ;;
esac
error=$({ [ -w "$target" ] && cd "$target"; } 2>&1) || fail client-permission "${error:-$target cannot be written}"
cd "$target" || exit 1
say "target $(pwd)"

# discard PATH: what this job has written of a file before; never by way of a symbolic link.
discard() (
    rest=$1
    while :; do
        part=${rest%%/*}
        if [ -z "$part" ] || [ "$part" = .. ] || [ -L "$part" ]; then return 0; fi
        [ "$part" != "$rest" ] || break
        cd "./$part" 2>/dev/null || return 0
        rest=${rest#*/}
    done
    [ ! -f "$rest" ] || rm -f "./$rest"
)
# Begun before: everything that is there this job has made. What is left out this time must not stay there half written, and whoever is not root
# needs the right to write over the rest.
if [ -n "$again" ] && [ "$place" != in-place ]; then
    find . -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
    half=0
    while [ "$half" -lt "$half_count" ]; do
        eval "coded=\$half_$half"
        path=$(printf '%b.' "$coded")
        error=$(discard "${path%.}" 2>&1) || fail client-permission "what is incomplete cannot be removed: $error"
        half=$((half + 1))
    done
fi

# A directory of its own takes what the files have in all.
if [ "$needed" -gt 0 ]; then
    free=$(df -Pk . 2>/dev/null | { read -r _; read -r _ _ _ free _ && printf %s "$free"; })
    case "$free" in
    *[!0-9]* | '') ;;
    *) [ "$free" -ge "$needed" ] || fail client-enospc "the files have $needed KiB, and $(pwd) on the client has room for $free KiB" ;;
    esac
fi
say prepared

# The worker holds our standard input open as long as it wants the restore.
exec 3<&0
(
    cat <&3 >/dev/null
    waited=0
    until [ -s "$job_dir/pid" ] || [ "$waited" -ge 10 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    read -r pid <"$job_dir/pid" || exit
    let_go
    kill -INT "$pid"
    waited=0
    while [ "$waited" -lt 20 ] && kill -0 "$pid"; do
        sleep 1
        waited=$((waited + 1))
    done
    kill -KILL "$pid"
) >/dev/null 2>&1 9>&- &
watcher=$!

say started
run_borg "$@" </dev/null
code=$?
kill "$watcher" 2>/dev/null
case "$code" in
0 | 1 | 10[0-9] | 11[0-9] | 12[0-7]) ;;
*) forget ;;
esac
# An archive may have a mode for the directory it was made in.
[ "$place" = in-place ] || chmod 700 . 2>/dev/null
say "exit $code"
cleanup
job_dir=
say clean
