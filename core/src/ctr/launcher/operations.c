/* The table of operations: opcode, fields, sides, function (ctr/operations.py). */
#include "operations.h"

static const struct operation_type TYPES[] = {
	{1, "s", SUPERVISOR, NULL}, /* WatchOom: supervise.c */
	{2, "lsiiii", PARENT | CHILD, op_open_path},
	{3, "lsi", PARENT | CHILD, op_open_tree},
	{4, "lssSiS", PARENT | CHILD, op_new_mount},
	{5, "lsssi", PARENT, op_stage_mount},
	{6, "liiiLi", PARENT | CHILD, op_mount_attr},
	{7, "i", PARENT | CHILD, op_unshare},
	{8, "li", PARENT | CHILD, op_setns},
	{9, "sbi", PARENT | CHILD, op_write_file},
	{OP_CLONE, "iL", PARENT, op_clone},
	{11, "ss", PARENT, op_write_id_maps},
	{12, "i", PARENT, op_oom_score},
	{OP_SYNC, "i", PARENT | CHILD, op_sync},
	{14, "l", PARENT | CHILD, op_join_cgroup},
	{15, "i", CHILD, op_propagation},
	{16, "l", CHILD, op_attach_root},
	{17, "ssSii", CHILD, op_mount_at},
	{18, "lsi", CHILD, op_move_mount},
	{19, "siii", CHILD, op_make_directory},
	{20, "siiiii", CHILD, op_make_node},
	{21, "ss", CHILD, op_symlink},
	{22, "sl", CHILD, op_mask_path},
	{23, "s", CHILD, op_readonly_path},
	{24, "i", CHILD, op_root_attr},
	{25, "", CHILD, op_pivot_root},
	{26, "ss", CHILD, op_sysctl},
	{27, "iii", CHILD, op_rlimit},
	{28, "s", CHILD, op_hostname},
	{29, "s", CHILD, op_domainname},
	{30, "s", CHILD, op_session_keyring},
	{31, "s", CHILD, op_link_up},
	{32, "i", CHILD, op_umask},
	{33, "ii", CHILD, op_stdio},
	{34, "siii", CHILD, op_chdir},
	{35, "", CHILD, op_no_new_privileges},
	{36, "bi", CHILD, op_seccomp},
	{37, "i", CHILD, op_bounding_set},
	{38, "iiI", CHILD, op_identity},
	{39, "iiii", CHILD, op_capabilities},
	{OP_INIT, "", CHILD, op_init},
	{41, "", CHILD, op_close_descriptors},
	{OP_EXEC, "SSs", CHILD, op_exec},
};

const struct operation_type *operation_type(uint16_t opcode)
{
	size_t i;

	for (i = 0; i < sizeof(TYPES) / sizeof(*TYPES); i++)
		if (TYPES[i].opcode == opcode)
			return &TYPES[i];
	return NULL;
}
