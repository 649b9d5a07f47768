# Runs on the client, one backup. What precedes this line was assigned by the worker: the size of what follows on standard input,
# no secrets (everybody on the host can read the arguments of a process). Needs: sh, dd, mkdir, mv, rm, cat, kill, sleep; mkfifo on the
# carrier's road; and stat, or the chunks cache is sent each time.
# Standard output carries one line a step to the worker, standard error is borg's.
set -u
umask 077
LC_ALL=${LC_ALL:-C.UTF-8}
export LC_ALL

say() { printf 'borgcube %s\n' "$*"; }

# fail WORD MESSAGE: the worker knows the words.
fail() {
    say "failed $1 $(printf '%s' "$2" | tr '\n' ' ')"
    exit 0
}

# take SIZE: exactly so many bytes of standard input.
take() {
    if [ $(($1 / 65536)) -gt 0 ]; then
        dd bs=65536 count=$(($1 / 65536)) iflag=fullblock status=none || return 1
    fi
    if [ $(($1 % 65536)) -gt 0 ]; then
        dd bs=$(($1 % 65536)) count=1 iflag=fullblock status=none || return 1
    fi
}

job_dir=
# Whoever waits for the other end of the carrier's pipes waits no longer.
let_go() {
    for pipe in up down; do
        [ ! -p "$job_dir/$pipe" ] || true <>"$job_dir/$pipe"
    done
}
cleanup() {
    [ -n "$job_dir" ] || return 0
    let_go
    rm -rf "$job_dir"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM PIPE

# Borg's environment and arguments; the only place where secrets arrive.
settings_complete=
eval "$(take "$settings_size")"
[ -n "$settings_complete" ] || exit 1

# The SSH key of this job and what the server has to show: they come before whatever the worker answers.
if [ "$key_size" -gt 0 ]; then
    key=$(take "$key_size") && known_hosts=$(take "$known_hosts_size") || exit 1
fi

# put FILE TEXT: by standard input, for everybody on the host can read arguments.
put() {
    cat >"$1" <<END
$2
END
}

base=${cache_dir:-${HOME:-}/.cache/borgcube/$server_id}
error=$(mkdir -p "$base" 2>&1) || fail client-cache "$error"

# One job of this server at a time on this host and repository, whatever became of the last one: they share a cache. The lock is
# inherited by borg and ends with it.
if command -v flock >/dev/null 2>&1; then
    # Not `exec` alone: a redirection that fails there ends the shell without a word.
    (: >>"$base/lock-$repository_id") 2>/dev/null || fail client-cache "$base can't be written"
    exec 9>>"$base/lock-$repository_id"
    flock -w 75 9 || fail client-cache "an earlier backup of this host by this server has not ended yet"
fi

find_borg

missing=0
for path in $literal_paths; do
    eval "path=\$path_$path"
    [ -e "$path" ] || [ -L "$path" ] || { say "missing $path"; missing=$((missing + 1)); }
done
if [ "$missing" -gt 0 ] && [ "$missing" -eq "$path_count" ]; then
    fail path-missing "no path of the config exists on the client"
fi

job_dir=$base/job-$repository_id-$job
rm -rf "$base/job-$repository_id"-*
error=$(mkdir "$job_dir" 2>&1) || fail client-cache "$error"
# The way back: the SSH key of this job and what the server has to show, or the pipes of the carrier. All of it goes with the directory.
borgcube_job_dir=$job_dir
export borgcube_job_dir
if [ "$key_size" -gt 0 ]; then
    error=$({ put "$job_dir/key" "$key" && put "$job_dir/known_hosts" "$known_hosts"; } 2>&1) || fail client-cache "$error"
fi
if [ -n "$carrier" ]; then
    error=$(mkfifo "$job_dir/up" "$job_dir/down" 2>&1) || fail client-cache "$error"
fi

BORG_BASE_DIR=$base
BORG_CACHE_DIR=$base/cache
BORG_SECURITY_DIR=$job_dir/security
export BORG_BASE_DIR BORG_CACHE_DIR BORG_SECURITY_DIR
cache=$BORG_CACHE_DIR/$repository_id
error=$(mkdir -p "$cache" 2>&1) || fail client-cache "$error"

# What our chunks cache looks like: borg and its version, inode, size and times of the file.
looks() { printf '%s %s' "$version" "$(TZ=UTC0 stat -c '%i %s %y %z' "$cache/chunks" 2>/dev/null)"; }

# The mark of the job that left the cache as it is, if it is still as that job left it. From now on it is nobody's, until borg has ended well.
found=-
if [ -f "$cache/borgcube-mark" ] && [ ! -e "$cache/txn.active" ]; then
    { read -r left && read -r looked; } <"$cache/borgcube-mark" && [ "$looked" = "$(looks)" ] && found=$left
fi
error=$(rm -f "$cache/borgcube-mark" 2>&1) || fail client-cache "$error"

# A transaction that a killed borg left open holds the last good files cache; the rest of it would roll our chunks cache back.
for kept in "$cache"/txn.active/files*; do
    [ ! -f "$kept" ] || mv -f "$kept" "$cache/"
done
error=$(rm -rf "$cache/lock.exclusive" "$cache/lock.roster" "$cache/txn.active" "$cache/txn.tmp" "$cache/chunks.archive.d" "$cache/pre12-meta" 2>&1) ||
    fail client-cache "$error"
say "cache $found"
answer=$(take 20)
answer=${answer%% *}
case "$answer" in
keep) ;;
*[!0-9]* | '') exit 1 ;;
*)
    # A new file: whatever still has the old one open keeps that.
    rm -f "$cache/chunks"
    error=$({ take "$answer" >"$cache/chunks"; } 2>&1) || fail client-cache "$error"
    # dd is content with an input that ends early.
    [ "$(wc -c <"$cache/chunks")" -eq "$answer" ] || exit 1
    ;;
esac
error=$({
    printf '%s\n' '[cache]' 'version = 1' "repository = $repository_id" "manifest = $manifest_id" >"$cache/config" &&
        : >"$cache/chunks.archive.d" && : >>"$cache/files.$BORG_FILES_CACHE_SUFFIX"
} 2>&1) || fail client-cache "$error"
say prepared

# The worker holds our standard input open as long as it wants the backup. At its end borg gets the chance to write a checkpoint.
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
    # At the first SIGINT borg 1.2 and newer write a checkpoint and then finish the file they read, however large;
    # a second one ends them. The cache's config is replaced when the checkpoint is complete.
    before=$(ls -i "$cache/config")
    kill -INT "$pid"
    waited=0
    while [ "$waited" -lt 60 ] && kill -0 "$pid"; do
        sleep 1
        waited=$((waited + 1))
        if [ -n "$before" ] && [ "$(ls -i "$cache/config")" != "$before" ]; then
            before=
            kill -INT "$pid"
        fi
    done
    kill -KILL "$pid"
) >/dev/null 2>&1 9>&- &
watcher=$!

say started
# A borg of our own shell's background would ignore SIGINT; in the foreground it has its default.
sh -c 'echo $$ >"$0"; exec "$@"' "$job_dir/pid" "$borg" "$@" </dev/null >&2 3<&-
code=$?
kill "$watcher" 2>/dev/null
# For the next job. Whether this one ended well in the end, the server remembers.
case "$code" in
0 | 1 | 10[0-9] | 11[0-9] | 12[0-7])
    [ -e "$cache/txn.active" ] || ! stat -c %i "$cache/chunks" >/dev/null 2>&1 ||
        { printf '%s\n' "$mark" "$(looks)" >"$cache/borgcube-mark.new" && mv -f "$cache/borgcube-mark.new" "$cache/borgcube-mark"; } 2>/dev/null
    ;;
esac
say "exit $code"
cleanup
job_dir=
say clean
