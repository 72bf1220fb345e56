"""The tags that Surefoot gives runs in MLflow."""

IDENTITY = "surefoot.identity"
COMPLETE = "surefoot.complete"  # of a run that lacks nothing
MODEL = "surefoot.model_id"  # names a run's model
WEIGHTS = "surefoot.model_weights"  # the digest of its weights
REGISTERED = "surefoot.registered"  # as what the model is in the registry
NOTE = "mlflow.note.content"
NO_GIT = "surefoot.git.missing"  # why a run has no commit
PATCH_DIGEST = "surefoot.git.patch"
PATCH_RUN = "surefoot.git.patch_run"  # the run whose artifact the patch is: one of those with the same
KIND = "surefoot.kind"  # of a run that is no training: the command that made it
SWEEP = "surefoot.sweep"  # groups the runs of a sweep or a search
INCOMPLETE = "surefoot.incomplete"  # why a run ended before its last epoch
STEPS = "surefoot.steps"  # how a training took its steps: recorded, or eagerly and why
PROCESSES = "surefoot.processes"  # how many trained, where there were several
OF = "surefoot.parent_of"  # the parent's: of which sweep
PARENT_KIND = "sweep"  # its KIND
PARENT = "mlflow.parentRunId"  # by which MLflow shows one run below another
