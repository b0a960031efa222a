/* One function an operation; all of one shape.  Returns 0, or -1 with errno set (and, where
 * that says more than the operation's own description, a detail noted by fail). */
#ifndef CTR_OPERATIONS_H
#define CTR_OPERATIONS_H

#include "launcher.h"

#define OPERATION(name) int op_##name(struct run *run, const struct field *fields)

/* mounts.c */
OPERATION(open_tree);
OPERATION(new_mount);
OPERATION(stage_mount);
OPERATION(mount_attr);
OPERATION(propagation);
OPERATION(attach_root);
OPERATION(mount_at);
OPERATION(move_mount);
OPERATION(mask_path);
OPERATION(readonly_path);
OPERATION(root_attr);
OPERATION(pivot_root);

/* files.c */
OPERATION(open_path);
OPERATION(write_file);
OPERATION(make_directory);
OPERATION(make_node);
OPERATION(symlink);
OPERATION(sysctl);
OPERATION(chdir);

/* process.c */
OPERATION(unshare);
OPERATION(setns);
OPERATION(clone);
OPERATION(write_id_maps);
OPERATION(oom_score);
OPERATION(sync);
OPERATION(join_cgroup);
OPERATION(rlimit);
OPERATION(hostname);
OPERATION(domainname);
OPERATION(session_keyring);
OPERATION(link_up);
OPERATION(umask);

/* identity.c */
OPERATION(no_new_privileges);
OPERATION(seccomp);
OPERATION(bounding_set);
OPERATION(identity);
OPERATION(capabilities);

/* exec.c */
OPERATION(stdio);
OPERATION(init);
OPERATION(close_descriptors);
OPERATION(exec);

#endif
