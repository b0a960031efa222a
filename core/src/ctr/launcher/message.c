/* Packets on the control socket and on the channel. */
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "launcher.h"

#define HEAD offsetof(struct message, text)

union rights {
	struct cmsghdr header;
	char space[CMSG_SPACE(3 * sizeof(int))];
};

int send_message(int socket, uint32_t kind, int32_t a, int64_t b, const char *text)
{
	struct message message = {.kind = kind, .a = a, .b = b};
	size_t size = text ? strnlen(text, MAX_TEXT) : 0;
	ssize_t sent;

	memcpy(message.text, text ? text : "", size);
	do
		sent = send(socket, &message, HEAD + size, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -1 : 0;
}

int send_descriptors(int socket, uint32_t kind, const int fds[3])
{
	struct message message = {.kind = kind};
	struct iovec vector = {&message, HEAD};
	union rights rights = {0};
	struct msghdr packet = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = &rights,
		.msg_controllen = sizeof(rights),
	};

	rights.header.cmsg_level = SOL_SOCKET;
	rights.header.cmsg_type = SCM_RIGHTS;
	rights.header.cmsg_len = CMSG_LEN(3 * sizeof(int));
	memcpy(CMSG_DATA(&rights.header), fds, 3 * sizeof(int));
	return sendmsg(socket, &packet, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

ssize_t receive_message(int socket, struct message *message, int fds[3])
{
	struct iovec vector = {message, sizeof(*message)};
	union rights rights = {0};
	struct msghdr packet = {
		.msg_iov = &vector,
		.msg_iovlen = 1,
		.msg_control = fds ? &rights : NULL,
		.msg_controllen = fds ? sizeof(rights) : 0,
	};
	ssize_t size;

	memset(message, 0, sizeof(*message));
	do
		size = recvmsg(socket, &packet, MSG_CMSG_CLOEXEC);
	while (size < 0 && errno == EINTR);
	if (size < 0)
		return errno == ECONNRESET ? 0 : -1;
	if (fds) {
		fds[0] = fds[1] = fds[2] = -1;
		if (packet.msg_controllen >= CMSG_LEN(3 * sizeof(int)) &&
		    rights.header.cmsg_type == SCM_RIGHTS &&
		    rights.header.cmsg_len == CMSG_LEN(3 * sizeof(int)))
			memcpy(fds, CMSG_DATA(&rights.header), 3 * sizeof(int));
	}
	if (size > 0 && (size_t)size < HEAD)
		message->kind = 0;
	return size;
}
