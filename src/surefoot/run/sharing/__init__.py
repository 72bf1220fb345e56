"""The trajectory store that machines share (`SUREFOOT_STORE=s3://...`), with the local one as its cache.

shared_store      what it has of a run; what the local store has for it
bring             brings there what is noted
sharing_process   does so while a stage trains
start_sharing     that process, as the stage sees it
"""
