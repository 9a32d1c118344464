#!/bin/bash
# TPU VMs of Google Cloud: the same command on every machine of a slice, or of several slices.
#
#   TPU=my-v5e-256 ZONE=us-west4-a experiments/launch/tpu_vm.sh /mnt/shared/runs/first \
#       my/experiment.py --config.mesh.fsdp=16
#
# The workdir has to lie where all machines see it: on Filestore, or in a bucket that is mounted
# there. They find each other by the TPU's metadata. The same command goes on with a run that ended.
set -euo pipefail

workdir=$1
shift
: "${TPU:?name of the TPU VM}" "${ZONE:?its zone}"

on_all() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

tar --exclude=.git --exclude=runs -czf /tmp/mmcl-source.tgz .
gcloud compute tpus tpu-vm scp /tmp/mmcl-source.tgz "$TPU": --zone="$ZONE" --worker=all
on_all "mkdir -p mmcl && tar -xzf mmcl-source.tgz -C mmcl && pip install -q -e './mmcl[tpu,remote]'"
on_all "cd mmcl && mmcl train $(printf '%q ' "$@") --workdir $(printf '%q' "$workdir")"
