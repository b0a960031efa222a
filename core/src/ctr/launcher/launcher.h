/* What the launcher's files share.  ctr/launcher/protocol.py is the specification of what
 * the supervisor says and keeps; ctr/operations.py of what the operations do. */
#ifndef CTR_LAUNCHER_H
#define CTR_LAUNCHER_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "program.h"

#define PROTOCOL_VERSION 1
#define MAX_TEXT 240
#define NUMBER_SIZE 24 /* characters of an int64_t, with room */

enum { CONTROL_FD = 3, PROGRAM_FD, RUN_DIR_FD, CLIENT_STDIN_FD };

/* Messages on the control socket; those from 64 on are spoken only on the channel between
 * parent or child and the supervisor, which otherwise carries TRACE, SYNC, FAILED and GO. */
enum {
	HELLO = 1,
	TRACE,
	SYNC,
	FAILED,
	STARTED,
	EXITED,
	GO = 16,
	SIGNAL,
	DONE,
	CHILD_IS = 64, /* a = the child's PID */
	PARTED,        /* the parent's part ended without a Sync */
	STDIO,         /* three descriptors: our ends of the container's pipes */
	EXECUTED,      /* from PID 1 as init: its child's exec succeeded */
};

struct message {
	uint32_t kind;
	int32_t a;
	int64_t b;
	char text[MAX_TEXT];
};

/* message.c */

/* Sends one packet; `text` may be NULL, `fds` are three descriptors or NULL. */
int send_message(int socket, uint32_t kind, int32_t a, int64_t b, const char *text);
int send_descriptors(int socket, uint32_t kind, const int fds[3]);
/* Receives one: its size, 0 at end of file (a reset counts as that), -1 for an error.  The
 * text is cut or filled with NULs.  Descriptors go to `fds` (-1: none) unless it is NULL. */
ssize_t receive_message(int socket, struct message *message, int fds[3]);

/* text.c: just what is needed of stdio, without its 20 kB. */

/* Appends to the NUL-terminated `buffer`; what does not fit is left out. */
void append(char *buffer, size_t size, const char *text);
void append_number(char *buffer, size_t size, int64_t number);
/* Reads a small file into `buffer` with a NUL; false when that failed. */
bool read_small(int dirfd, const char *path, char *buffer, size_t size);

/* The state of a running program: the parent's, then the child's copy of it. */
struct run {
	const struct program *program;
	size_t offset;
	int index; /* of the operation that runs */
	enum side side;
	int channel;
	pid_t child; /* known to the parent */
	bool synced;  /* the parent has told its end by a Sync */
	bool staged;  /* the parent has a mount namespace for StageMount */
	bool pivoted;
	int root; /* the container's root, once attached */
	int proc; /* a clone of the procfs that MountAt made, free of later mounts on it */
	int cover; /* an empty read-only tmpfs: what MaskPath covers folders with */
	int slots[MAX_SLOTS];
	char detail[MAX_TEXT];
};

/* launch.c */

/* Forks the parent, which runs the program; returns its PID.  `arguments` are main's. */
pid_t launch(const struct program *program, int channel[2], char **arguments);
/* What must be so before a namespace is entered and again after credentials changed: the
 * supervisor's end is ours, and nobody may look into this process. */
int guard_process(void);
/* Waits for the supervisor's GO; does not return when it is gone. */
void await_go(const struct run *run);
/* Notes what failed for the report; errno stays.  Returns -1. */
int fail(struct run *run, const char *what, const char *object);
int fail_with(struct run *run, int error, const char *what, const char *object);
/* The descriptor in a slot, or -1 with EBADF. */
int slot_get(struct run *run, const struct field *field);
int slot_set(struct run *run, const struct field *field, int fd);
/* Reports the failure of the current operation and ends the process. */
_Noreturn void report_failure(struct run *run);

/* paths.c: paths beneath the container's root */

/* enum ctr.program.Create */
enum create { CREATE_NOTHING, CREATE_DIRECTORY, CREATE_FILE, CREATE_PLAIN_DIRECTORY };

/* Opens `path` beneath the container's root.  Links are followed within the root. */
int open_beneath(struct run *run, const char *path, int flags);
/* The same, O_PATH, after making what is missing: folders 0755, at the end what `create`
 * says.  `created` (or NULL) tells whether the last component was made. */
int open_target(struct run *run, const char *path, enum create create, bool *created);
/* Opens the folder that holds the path's last component (made where missing) and points
 * `name` at that. */
int open_parent(struct run *run, const char *path, const char **name);
/* open(2) of a host path, or beneath the root after pivot_root, where a path is the image's. */
int open_path(struct run *run, const char *path, int flags);
/* enum ctr.program.Verify; -1 with EBADF when it is something else. */
int verify(int fd, int64_t what, int64_t major, int64_t minor);
int write_all(int fd, const void *data, size_t size);
/* Closes `fd` and keeps errno; returns `result`. */
int closing(int fd, int result);

/* stream.c: output and input between the container's pipes and the client's */
struct stream {
	int from, to; /* -1: closed */
	bool input;   /* towards the container */
	bool full;    /* the reader does not keep up: wait for it */
	int left;     /* bytes that are still to be moved, once PID 1 has ended; -1: no end */
};

void stream_close(struct stream *stream);
void stream_pump(struct stream *stream);
void stream_drain(struct stream *stream);

/* supervise.c */
struct supervisor {
	pid_t parent, child;
	int parent_pidfd, child_pidfd;
	int channel; /* -1: closed */
	int status;  /* the file */
	int oom;     /* the file to look for OOM kills in; -1: none */
	bool engine; /* is at the other end of the control socket */
	bool cleaned; /* the engine said DONE */
	bool asked; /* the engine was asked for GO */
	bool executed; /* PID 1, as init, has started its payload */
	struct message failure; /* what to report, once all is ended */
	struct stream streams[3];
};

/* Runs the program up to the commit point.  False when that was not reached; then parent
 * and child have ended, and the engine knows why. */
bool supervise_launch(struct supervisor *s, const struct program *program, char **arguments);
/* Sees the container to its end and reports it. */
void supervise_container(struct supervisor *s);

#endif
