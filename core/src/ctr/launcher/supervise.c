/* The supervisor: relays the launch to the engine, then sees the container to its end. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>

#include "launcher.h"
#include "syscalls.h"

/* from linux/sched.h: in /proc/PID/stat's flags until the process executes something */
#define FORKED_BUT_NOT_EXECUTED 0x40

/* -- the status file ------------------------------------------------------------------- */

static void append_now(char *line, size_t size)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	append(line, size, " ");
	append_number(line, size, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
	append(line, size, "\n");
}

static int write_status(const struct supervisor *s, char *line, size_t size)
{
	append_now(line, size);
	return write(s->status, line, strlen(line)) == (ssize_t)strlen(line) ? 0 : -1;
}

/* Field `number` of /proc/PID/stat (from 4 on); names may hold spaces and parentheses. */
static int64_t stat_field(const char *text, int number)
{
	const char *next = strrchr(text, ')');
	int64_t value = 0;

	for (; next && number > 2; number--)
		next = strchr(next + 1, ' ');
	while (next && next[1] >= '0' && next[1] <= '9')
		value = value * 10 + (*++next - '0');
	return value;
}

/* -- the launch ------------------------------------------------------------------------ */

static bool fail_launch(struct supervisor *s, int error, const char *text)
{
	s->failure = (struct message){.kind = FAILED, .a = -1, .b = error};
	append(s->failure.text, MAX_TEXT, text);
	return false;
}

static bool fail_died(struct supervisor *s, const char *who, int status)
{
	fail_launch(s, 0, who);
	append(s->failure.text, MAX_TEXT, " died: wait status ");
	append_number(s->failure.text, MAX_TEXT, status);
	return false;
}

/* A client without standard input gives /dev/null. */
static bool is_null(int fd)
{
	struct stat status;

	return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) &&
	       status.st_rdev == makedev(1, 3);
}

static void connect_streams(struct supervisor *s, const int ours[3])
{
	int i;

	for (i = 0; i < 3; i++) {
		s->streams[i].from = i == 0 ? CLIENT_STDIN_FD : ours[i];
		s->streams[i].to = i == 0 ? ours[i] : CLIENT_STDIN_FD + i;
	}
	if (is_null(CLIENT_STDIN_FD))
		stream_close(&s->streams[0]);
}

/* One packet of parent or child.  False ends the launch. */
static bool relay(struct supervisor *s, const struct message *message, const int fds[3])
{
	switch (message->kind) {
	case CHILD_IS:
		s->child = message->a;
		s->child_pidfd = sys_pidfd_open(s->child);
		return s->child_pidfd >= 0 || fail_launch(s, errno, "pidfd_open");
	case PARTED:
		return send_message(s->channel, GO, 0, 0, NULL) == 0;
	case SYNC:
		s->asked = true;
		return send_message(CONTROL_FD, SYNC, message->a, s->child, NULL) == 0;
	case TRACE:
		return send_message(CONTROL_FD, TRACE, message->a, 0, NULL) == 0;
	case STDIO:
		connect_streams(s, fds);
		return true;
	case EXECUTED:
		s->executed = true;
		return true;
	case FAILED:
		s->failure = *message;
		return false;
	}
	return fail_launch(s, EPROTO, "an unknown message");
}

/* One packet of the engine.  False when it is gone. */
static bool obey(struct supervisor *s)
{
	struct message message;

	if (receive_message(CONTROL_FD, &message, NULL) <= 0)
		return false;
	if (message.kind == GO && s->asked && s->channel >= 0) {
		s->asked = false;
		send_message(s->channel, GO, 0, 0, NULL);
	} else if (message.kind == SIGNAL && s->channel < 0) {
		sys_pidfd_send_signal(s->child_pidfd, message.a);
	} else if (message.kind == DONE) {
		s->cleaned = true;
	}
	return true;
}

/* Everybody has closed the channel: the exec succeeded or the child died.  The kernel tells
 * them apart by a flag that a process carries from fork to exec, also as a zombie. */
static bool commit(struct supervisor *s, const struct program *program)
{
	char path[MAX_TEXT] = "/proc/", text[512], line[MAX_TEXT] = "started ";
	int status = 0;

	append_number(path, sizeof(path), s->child);
	append(path, sizeof(path), "/stat");
	if (!s->child || !read_small(AT_FDCWD, path, text, sizeof(text)))
		return fail_launch(s, errno, "read the child's stat");
	if (program->init ? !s->executed : stat_field(text, 9) & FORKED_BUT_NOT_EXECUTED) {
		sys_pidfd_send_signal(s->child_pidfd, SIGKILL);
		waitpid(s->child, &status, 0);
		s->child = 0;
		return fail_died(s, "the child", status);
	}
	append_number(line, sizeof(line), s->child);
	append(line, sizeof(line), " ");
	append_number(line, sizeof(line), stat_field(text, 22));
	if (write_status(s, line, sizeof(line)) < 0)
		return fail_launch(s, errno, "write the status file");
	return true;
}

/* The parent has ended.  False when it did so before its time. */
static bool reap_parent(struct supervisor *s)
{
	int status = 0;

	waitpid(s->parent, &status, 0);
	close(s->parent_pidfd);
	s->parent = 0;
	s->parent_pidfd = -1;
	return status == 0 || fail_died(s, "the launch's parent", status);
}

static bool run_launch(struct supervisor *s, const struct program *program)
{
	struct pollfd polls[3] = {
		{.fd = CONTROL_FD, .events = POLLIN},
		{.fd = s->channel, .events = POLLIN},
		{.fd = s->parent_pidfd, .events = POLLIN},
	};
	struct message message;
	ssize_t size;
	int fds[3];

	for (;;) {
		polls[2].fd = s->parent_pidfd;
		if (poll(polls, 3, -1) < 0 && errno != EINTR)
			return fail_launch(s, errno, "poll");
		if (polls[0].revents && !obey(s))
			return s->engine = false;
		if (polls[1].revents) {
			size = receive_message(s->channel, &message, fds);
			if (size < 0)
				return fail_launch(s, errno, "recvmsg");
			if (size == 0)
				return commit(s, program);
			if (!relay(s, &message, fds))
				return false;
		} else if (polls[2].revents && !reap_parent(s)) {
			return false;
		}
	}
}

/* Ends what the launch has begun.  The child, were it not known yet, waits for a GO and ends
 * when the channel is closed. */
static void break_off(struct supervisor *s)
{
	close(s->channel);
	if (s->parent)
		kill(s->parent, SIGKILL);
	if (s->child && s->child_pidfd >= 0)
		sys_pidfd_send_signal(s->child_pidfd, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
}

/* Opens what the program's first phase wants watched. */
static bool watch(struct supervisor *s, const struct program *program)
{
	struct operation operation;
	struct field fields[MAX_FIELDS];
	size_t offset = 0;
	int index;

	for (index = 0; program_next(program, &offset, &operation); index++) {
		if (operation.phase != WATCH)
			break;
		if (program->flags & PROGRAM_TRACE)
			send_message(CONTROL_FD, TRACE, index, 0, NULL);
		decode_fields(&operation, fields);
		s->oom = open((const char *)fields[0].data, O_RDONLY | O_CLOEXEC);
		if (s->oom < 0) {
			fail_launch(s, errno, "");
			s->failure.a = index;
			return false;
		}
	}
	return true;
}

static bool begin(struct supervisor *s, const struct program *program, char **arguments)
{
	int channel[2];

	s->status = openat(RUN_DIR_FD, "status",
			   O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->status < 0)
		return fail_launch(s, errno, "open the status file");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0)
		return fail_launch(s, errno, "socketpair");
	s->channel = channel[0];
	s->parent = launch(program, channel, arguments);
	close(channel[1]);
	if (s->parent < 0) {
		s->parent = 0;
		return fail_launch(s, errno, "fork");
	}
	s->parent_pidfd = sys_pidfd_open(s->parent);
	return s->parent_pidfd >= 0 || fail_launch(s, errno, "pidfd_open");
}

bool supervise_launch(struct supervisor *s, const struct program *program, char **arguments)
{
	int i;

	*s = (struct supervisor){
		.parent_pidfd = -1,
		.child_pidfd = -1,
		.channel = -1,
		.oom = -1,
		.engine = true,
	};
	for (i = 0; i < 3; i++)
		s->streams[i] = (struct stream){.from = -1, .to = -1, .input = i == 0, .left = -1};
	if (watch(s, program) && begin(s, program, arguments) && run_launch(s, program)) {
		close(s->channel);
		s->channel = -1;
		return true;
	}
	break_off(s);
	if (s->engine && s->failure.kind)
		send_message(CONTROL_FD, FAILED, s->failure.a, s->failure.b, s->failure.text);
	return false;
}

/* -- the container --------------------------------------------------------------------- */

/* Whether the watched file counts a kill: a line "oom_kill N" with N above 0. */
static int oom_killed(const struct supervisor *s)
{
	char text[1024] = "\n";
	const char *line;
	ssize_t size;

	if (s->oom < 0)
		return 0;
	size = pread(s->oom, text + 1, sizeof(text) - 2, 0);
	text[size < 0 ? 1 : size + 1] = 0;
	line = strstr(text, "\noom_kill ");
	return line && line[10] >= '1' && line[10] <= '9';
}

static bool streaming(const struct supervisor *s)
{
	return s->streams[0].from >= 0 || s->streams[1].from >= 0 || s->streams[2].from >= 0;
}

static void poll_streams(struct supervisor *s, const struct pollfd *polls)
{
	int i;

	for (i = 0; i < 3; i++)
		if (polls[i].revents)
			stream_pump(&s->streams[i]);
}

static void prepare_streams(const struct supervisor *s, struct pollfd *polls)
{
	const struct stream *stream;
	int i;

	for (i = 0; i < 3; i++) {
		stream = &s->streams[i];
		polls[i] = (struct pollfd){
			.fd = stream->full ? stream->to : stream->from,
			.events = stream->full ? POLLOUT : POLLIN,
		};
	}
}

/* PID 1 has ended: says so in the status file and lets the output run out. */
static int end_container(struct supervisor *s, int *oom)
{
	char line[MAX_TEXT] = "exited ";
	int i, status = 0;

	while (waitpid(s->child, &status, 0) < 0 && errno == EINTR)
		;
	*oom = oom_killed(s);
	append_number(line, sizeof(line), status);
	append(line, sizeof(line), *oom ? " 1" : " 0");
	write_status(s, line, sizeof(line));
	for (i = 0; i < 3; i++)
		stream_drain(&s->streams[i]);
	return status;
}

void supervise_container(struct supervisor *s)
{
	struct pollfd polls[5] = {0};
	bool ended = false;
	int status = 0, oom = 0;

	if (send_message(CONTROL_FD, STARTED, 0, s->child, NULL) < 0)
		s->engine = false;
	if (s->parent)
		reap_parent(s);
	while (!ended || streaming(s)) {
		prepare_streams(s, polls);
		polls[3] = (struct pollfd){.fd = s->engine ? CONTROL_FD : -1, .events = POLLIN};
		polls[4] = (struct pollfd){.fd = ended ? -1 : s->child_pidfd, .events = POLLIN};
		if (poll(polls, 5, -1) < 0)
			continue;
		poll_streams(s, polls);
		if (polls[3].revents && !obey(s))
			s->engine = false;
		if (polls[4].revents) {
			status = end_container(s, &oom);
			ended = true;
		}
	}
	if (s->engine && send_message(CONTROL_FD, EXITED, status, oom, NULL) < 0)
		s->engine = false;
	while (s->engine && !s->cleaned)
		s->engine = obey(s);
}
