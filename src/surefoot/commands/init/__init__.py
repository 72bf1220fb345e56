"""`surefoot init`: a pipeline in somebody's own repository."""
