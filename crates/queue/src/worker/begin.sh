# Runs on the client, at the beginning of a backup or a restore. What precedes this line was assigned by the worker: the size of what follows
# on standard input, no secrets (everybody on the host can read the arguments of a process). Needs: sh, dd, mkdir, mv, rm, cat, kill, sleep; mkfifo on the
# carrier's road; stat, or the chunks cache is sent with each backup; date and stat, or borg is asked for its version
# each time; df, or a restore does not look whether there is room.
# Standard output carries one line a step to the worker, standard error is borg's.
set -u
login_umask=$(umask)
umask 077
# What the login exports under a name of ours would export ours, to the administrator's commands as well. Borg gets its own at its start.
# (POSIX: `export NAME=value`, quoted; what looks like a line of a value is no harm.)
for name in $(export -p | while IFS= read -r line; do
    name=${line#export }
    name=${name%%=*}
    case "$name" in
    *[!A-Za-z0-9_]*) ;;
    BORG_* | key | known_hosts | borgcube_job_dir) printf '%s\n' "$name" ;;
    esac
done); do
    unset "$name"
done
login_tmpdir=${TMPDIR-} login_has_tmpdir=${TMPDIR+yes}
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
# What is to be done before the job's files go.
finally() { :; }
cleanup() {
    [ -n "$job_dir" ] || return 0
    finally
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

# put FILE TEXT: not as an argument of a program, which everybody on the host can read; nor as a here-document where that can be helped, for a shell
# may write those to the disk.
put() {
    case $(command -v printf) in
    printf) printf '%s\n' "$2" >"$1" ;;
    *)
        cat >"$1" <<END
$2
END
        ;;
    esac
}

base=${cache_dir:-${HOME:-}/.cache/borgcube/$server_id}
error=$(mkdir -p "$base" 2>&1) || fail client-cache "$error"

# lock NAME WHAT: until this script and the borg that it starts have ended. Not `exec` alone: a redirection that fails there ends the shell
# without a word.
lock() {
    command -v flock >/dev/null 2>&1 || return 1
    (: >>"$base/$1") 2>/dev/null || fail client-cache "$base can't be written"
    exec 9>>"$base/$1"
    flock -w 75 9 || fail client-cache "an earlier $2 of this host by this server has not ended yet"
    return 0
}

# make_roads: the SSH key of this job and what the server has to show, or the pipes of the carrier. All of it goes with the directory.
make_roads() {
    borgcube_job_dir=$job_dir
    borg_variables="$borg_variables borgcube_job_dir"
    if [ "$key_size" -gt 0 ]; then
        error=$({ put "$job_dir/key" "$key" && put "$job_dir/known_hosts" "$known_hosts"; } 2>&1) || fail client-cache "$error"
        unset key known_hosts
    fi
    if [ -n "$carrier" ]; then
        error=$(mkfifo "$job_dir/up" "$job_dir/down" 2>&1) || fail client-cache "$error"
    fi
}

# run_borg ARGUMENTS: in the foreground: one of our shell's background would ignore SIGINT. Its variables are its own, and
# no other program of this script has them.
run_borg() (
    export $borg_variables
    exec sh -c 'echo $$ >"$0"; exec "$@"' "$job_dir/pid" "$borg" "$@" >&2 3<&-
)
