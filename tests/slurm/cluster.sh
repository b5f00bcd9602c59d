#!/usr/bin/env bash
# A SLURM cluster of one node on this machine, for the tests: cluster.sh start|stop. The first prints
# what SLURM_CONF has to be for SLURM's tools to find it.
# It is started by hand, because a container has no systemd. Needs root, and Debian's packages.
set -euo pipefail

PACKAGES="slurmctld slurmd slurm-client munge"
HOME_OF_CLUSTER=${LAYERSCOPE_CLUSTER:-/tmp/layerscope-cluster}
export SLURM_CONF=$HOME_OF_CLUSTER/slurm.conf

main() {
  case "${1:-}" in
    start) install && start ;;
    stop) stop ;;
    *) echo "usage: cluster.sh start|stop" >&2; exit 2 ;;
  esac
}

install() {
  { command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; } \
    >/dev/null && return
  command -v apt-get >/dev/null || {
    echo "Install what your system calls these Debian packages: $PACKAGES" >&2; exit 2; }
  apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $PACKAGES >/dev/null
}

start() {
  mkdir -p "$HOME_OF_CLUSTER"/{state,spool}
  configure
  running munged || start_munge
  running slurmctld || slurmctld -c
  running slurmd || slurmd -c
  wait_for_node
  echo "$SLURM_CONF"
}

start_munge() {
  [ -s /etc/munge/munge.key ] || {
    dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
    chown munge: /etc/munge/munge.key
    chmod 400 /etc/munge/munge.key
  }
  mkdir -p /run/munge
  chown munge: /run/munge
  chmod 755 /run/munge
  setpriv --reuid munge --regid munge --clear-groups munged --pid-file /run/munge/munged.pid
  touch "$HOME_OF_CLUSTER/munge-was-started"
}

configure() {
  local host
  host=$(hostname -s)
  cat > "$SLURM_CONF" <<EOF
ClusterName=layerscope
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
StateSaveLocation=$HOME_OF_CLUSTER/state
SlurmdSpoolDir=$HOME_OF_CLUSTER/spool
SlurmctldPidFile=$HOME_OF_CLUSTER/slurmctld.pid
SlurmdPidFile=$HOME_OF_CLUSTER/slurmd.pid
SlurmctldLogFile=$HOME_OF_CLUSTER/slurmctld.log
SlurmdLogFile=$HOME_OF_CLUSTER/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=5
# A requeued job starts again when its credential has expired: two minutes by default.
AuthInfo=cred_expire=5
SchedulerParameters=batch_sched_delay=1,sched_interval=5
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
EOF
}

wait_for_node() {
  for _ in $(seq 60); do
    if sinfo --noheader --format=%T 2>/dev/null |
      grep -qE '^(idle|mixed|allocated)$'; then
      return
    fi
    sleep 1
  done
  echo "The node did not come up; see $HOME_OF_CLUSTER/*.log" >&2
  exit 1
}

stop() {
  local name file pids=""
  for name in slurmd slurmctld $([ -e "$HOME_OF_CLUSTER/munge-was-started" ] && echo munged); do
    file=$(pid_file "$name")
    ! running "$name" || pids="$pids $(cat "$file")"
  done
  # Their pid files go before they do.
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill $pids
  for name in $pids; do
    for _ in $(seq 60); do
      alive "$name" || break
      sleep 1
    done
  done
  rm -rf "$HOME_OF_CLUSTER"
}

# Without an init nobody collects what has ended: that counts as gone.
alive() {
  grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status" 2>/dev/null
}

running() {
  local file
  file=$(pid_file "$1")
  [ -s "$file" ] && alive "$(cat "$file")" &&
    [ "$(cat "/proc/$(cat "$file")/comm" 2>/dev/null)" = "$1" ]
}

pid_file() {
  case "$1" in
    munged) echo /run/munge/munged.pid ;;
    *) echo "$HOME_OF_CLUSTER/$1.pid" ;;
  esac
}

main "$@"
