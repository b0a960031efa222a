/* Moves bytes between a container's pipe and a client's, inside the kernel.
 *
 * splice(2) with SPLICE_F_NONBLOCK needs neither a buffer of ours nor O_NONBLOCK, which
 * would be set on a file description that others may share.  Back-pressure is the pipes':
 * a reader that does not keep up makes the container wait, as a pipe would.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "launcher.h"

#define TURNS 16 /* moves in one go, so that no stream starves the others */
#define CHUNK (1 << 20)

void stream_close(struct stream *stream)
{
	if (stream->from >= 0)
		close(stream->from);
	if (stream->to >= 0)
		close(stream->to);
	stream->from = stream->to = -1;
}

/* The client went away: what the container says is read and dropped. */
static void drop(struct stream *stream)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	close(stream->to);
	stream->to = null;
	if (null < 0)
		stream_close(stream);
}

static bool ready(int fd, short events)
{
	struct pollfd poller = {.fd = fd, .events = events};

	return poll(&poller, 1, 0) > 0;
}

/* For what splice refuses: a terminal, a file opened to append. */
static ssize_t copy(const struct stream *stream, size_t size)
{
	char buffer[PIPE_BUF]; /* a pipe that is ready takes that much at once */
	ssize_t got;

	if (!ready(stream->from, POLLIN) || !ready(stream->to, POLLOUT)) {
		errno = EAGAIN;
		return -1;
	}
	got = read(stream->from, buffer, size < sizeof(buffer) ? size : sizeof(buffer));
	if (got > 0 && write_all(stream->to, buffer, (size_t)got) < 0)
		return -1;
	return got;
}

static ssize_t move(const struct stream *stream)
{
	size_t size = stream->left >= 0 && stream->left < CHUNK ? (size_t)stream->left : CHUNK;
	ssize_t moved;

	do
		moved = splice(stream->from, NULL, stream->to, NULL, size, SPLICE_F_NONBLOCK);
	while (moved < 0 && errno == EINTR);
	return moved < 0 && errno == EINVAL ? copy(stream, size) : moved;
}

void stream_pump(struct stream *stream)
{
	int turn;
	ssize_t moved;

	stream->full = false;
	for (turn = 0; turn < TURNS && stream->from >= 0; turn++) {
		moved = stream->left == 0 ? 0 : move(stream);
		if (moved > 0) {
			if (stream->left > 0)
				stream->left -= (int)moved;
		} else if (moved == 0) {
			stream_close(stream);
		} else if (errno == EAGAIN) {
			stream->full = ready(stream->from, POLLIN);
			if (!stream->full && stream->left >= 0)
				stream_close(stream); /* somebody else has read the rest */
			return;
		} else if (stream->input) {
			stream_close(stream);
		} else {
			drop(stream);
		}
	}
}

/* PID 1 has ended.  What it and its children wrote is in the pipe now: that much is moved,
 * and not what an outsider who still holds the pipe goes on writing. */
void stream_drain(struct stream *stream)
{
	if (stream->input || stream->from < 0 || ioctl(stream->from, FIONREAD, &stream->left) < 0)
		stream_close(stream);
	else
		stream_pump(stream);
}
