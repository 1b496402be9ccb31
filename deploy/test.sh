#!/usr/bin/env bash
# Checks what is in deploy/ with the real tools: the systemd unit with
# systemd-analyze, the image with buildah and podman. What a missing tool kept
# from being checked is said at the end.
#
#   deploy/test.sh             # checks what can be checked here
#   deploy/test.sh --required  # fails if anything was left out
#
# Debian: apt-get install systemd buildah podman runc
set -euo pipefail
cd "$(dirname "$0")/.."

required=0
case "${1:-}" in
'') ;;
--required) required=1 ;;
*) echo "usage: $0 [--required]" >&2; exit 2 ;;
esac

left_out=()
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

say() { printf '%s\n' "$*"; }
fail() { printf 'FAIL: %s\n' "$*" >&2; exit 1; }

CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$tmp/bin/replicator" ./cmd/replicator

# ---- configuration of the drill ----
# What the configuration refers to is the daemon's, and cannot be read: with the lines that
# the head of the drill's unit has, nothing of it is needed.
mkdir -m 0700 "$tmp/credentials"
for alias in east west; do
	(umask 077 && printf secret >"$tmp/credentials/$alias")
done
{
	sed 's,"env:\(EAST\|WEST\)_PASSWORD","file:/run/credentials/replicator@east-west.service/password",' deploy/pair-both-ways.yaml
	printf 'http: {token: "file:/run/credentials/replicator@east-west.service/token"}\n'
} >"$tmp/pair.yaml"
mapfile -t drop_in < <(sed -n 's,^#   Environment=,,p' deploy/systemd/replicator-drill@.service | sed "s,/run/credentials/replicator-drill@east-west.service,$tmp/credentials,")
out=$(env "${drop_in[@]}" "$tmp/bin/replicator" config check "$tmp/pair.yaml" 2>&1) || fail "the drop-in of replicator-drill@.service: $out"
say "ok   the drop-in of replicator-drill@.service takes the place of the daemon's secrets"

# ---- systemd ----
if command -v systemd-analyze >/dev/null; then
	# verify wants the binary to be there, and reads an instance.
	for unit in replicator replicator-drill; do
		sed "s,/usr/bin/replicator,$tmp/bin/replicator," "deploy/systemd/$unit@.service" >"$tmp/$unit@pair.service"
		# It succeeds for a key it does not know: any output is a failure.
		if ! out=$(systemd-analyze verify "$tmp/$unit@pair.service" 2>&1) || [ -n "$out" ]; then
			fail "systemd-analyze verify: $out"
		fi
		if ! out=$(systemd-analyze security --no-pager --offline=true --threshold=20 "$tmp/$unit@pair.service" 2>&1); then
			fail "systemd-analyze security: $out"
		fi
		say "ok   systemd unit $unit@.service: $(tail -1 <<<"$out" | sed 's/^[^O]*//')"
	done
	# Beside its service, which it starts.
	cp deploy/systemd/replicator-drill@.timer "$tmp/replicator-drill@pair.timer"
	if ! out=$(systemd-analyze verify "$tmp/replicator-drill@pair.timer" 2>&1) || [ -n "$out" ]; then
		fail "systemd-analyze verify: $out"
	fi
	when=$(sed -n 's/^OnCalendar=//p' deploy/systemd/replicator-drill@.timer)
	systemd-analyze calendar "$when" >/dev/null 2>&1 || fail "systemd-analyze calendar: $when"
	# What the service runs has to be a command line that is understood: a configuration
	# that is missing is the error then, not a flag.
	rc=0
	# shellcheck disable=SC2046 # words of a command line
	out=$("$tmp/bin/replicator" $(sed -n 's,^ExecStart=/usr/bin/replicator ,,p' deploy/systemd/replicator-drill@.service | sed "s,/etc/replicator/%i.yaml,$tmp/none.yaml,; s,%S,$tmp,; s,%i,pair,") 2>&1) || rc=$?
	{ [ "$rc" = 2 ] && grep -q 'none.yaml: no such file' <<<"$out"; } || fail "the command line of replicator-drill@.service ended with $rc: $out"
	say "ok   systemd timer replicator-drill@.timer, $when"
else
	left_out+=("systemd unit: systemd-analyze is missing")
fi

# ---- image ----
if command -v buildah >/dev/null; then
	image=localhost/replicator-deploy-test:$$
	store=(--root "$tmp/storage" --runroot "$tmp/run" --storage-driver vfs)
	cleanup() {
		buildah "${store[@]}" rmi -a -f >/dev/null 2>&1 || true
		rm -rf "$tmp"
	}
	trap cleanup EXIT
	# The docker format, because OCI's has no health check.
	buildah "${store[@]}" bud --quiet --format docker --isolation chroot -f deploy/docker/Dockerfile -t "$image" "$tmp/bin" >"$tmp/build.log" 2>&1 ||
		fail "buildah: $(cat "$tmp/build.log")"
	config=$(buildah "${store[@]}" inspect --type image "$image")
	for want in '"User": "65532:65532"' '"--check=alive"' '"StopSignal": "SIGTERM"'; do
		grep -qF -- "$want" <<<"$config" || fail "image: $want is not in its configuration"
	done
	say "ok   image builds: nonroot, with a health check"
	if command -v podman >/dev/null && command -v runc >/dev/null; then
		run=(podman "${store[@]}" --runtime runc run --rm --network none --read-only --cap-drop all --security-opt no-new-privileges
			--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
		out=$("${run[@]}" "$image" version 2>"$tmp/run.log") || fail "podman run: $(cat "$tmp/run.log")"
		grep -q '^replicator ' <<<"$out" || fail "replicator version in the image said: $out"
		say "ok   image runs, read-only and without capabilities: $out"
		# Without a daemon the health check has to fail, not to hang or to crash.
		rc=0
		out=$("${run[@]}" "$image" status --addr 127.0.0.1:8475 --check=alive 2>&1) || rc=$?
		[ "$rc" = 1 ] || fail "health check without a daemon ended with $rc: $out"
		grep -q 'connection refused' <<<"$out" || fail "health check without a daemon said: $out"
		say "ok   health check of the image"
		# No configuration is mounted: an error that says so, and the exit code of it.
		rc=0
		out=$("${run[@]}" "$image" 2>&1) || rc=$?
		[ "$rc" = 2 ] || fail "run without a configuration ended with $rc: $out"
		say "ok   run without a configuration is refused"
	else
		left_out+=("running the image: podman or runc is missing")
	fi
else
	left_out+=("image: buildah is missing")
fi

if [ ${#left_out[@]} -gt 0 ]; then
	say "NOT CHECKED:"
	printf '  %s\n' "${left_out[@]}"
	[ "$required" = 0 ] || exit 1
else
	say "Nothing was left out."
fi
