/* Numbers and short texts without stdio. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "launcher.h"

void append(char *buffer, size_t size, const char *text)
{
	size_t used = strnlen(buffer, size);
	size_t more = strlen(text);

	if (used >= size)
		return;
	if (more > size - used - 1)
		more = size - used - 1;
	memcpy(buffer + used, text, more);
	buffer[used + more] = 0;
}

void append_number(char *buffer, size_t size, int64_t number)
{
	char digits[NUMBER_SIZE];
	char *digit = digits + sizeof(digits) - 1;
	uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;

	*digit = 0;
	do
		*--digit = (char)('0' + rest % 10);
	while ((rest /= 10) != 0);
	if (number < 0)
		*--digit = '-';
	append(buffer, size, digit);
}

bool read_small(int dirfd, const char *path, char *buffer, size_t size)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, buffer, size - 1);
	close(fd);
	buffer[got < 0 ? 0 : got] = 0;
	return got >= 0;
}
