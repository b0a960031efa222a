/* What the launcher needs of string.h; see freestanding.c. */
#include <stdint.h>
#include <string.h>

/* Keeps the compiler from recognizing the loop and calling the very function it is in. */
#define OPAQUE __asm__ volatile("" ::: "memory")

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
	char *next = to;
	const char *source = from;

	while (size--) {
		OPAQUE;
		*next++ = *source++;
	}
	return to;
}

void *memmove(void *to, const void *from, size_t size)
{
	char *target = to;
	const char *source = from;

	if (target <= source)
		return memcpy(to, from, size);
	while (size--) {
		OPAQUE;
		target[size] = source[size];
	}
	return to;
}

void *memset(void *to, int byte, size_t size)
{
	char *next = to;

	while (size--) {
		OPAQUE;
		*next++ = (char)byte;
	}
	return to;
}

int memcmp(const void *left, const void *right, size_t size)
{
	const unsigned char *a = left, *b = right;

	for (; size && *a == *b; a++, b++)
		size--;
	return size ? *a - *b : 0;
}

void *memchr(const void *memory, int byte, size_t size)
{
	const unsigned char *next = memory;

	for (; size && *next != (unsigned char)byte; next++)
		size--;
	return size ? (void *)(uintptr_t)next : NULL;
}

size_t strnlen(const char *text, size_t size)
{
	const char *end = memchr(text, 0, size);

	return end ? (size_t)(end - text) : size;
}

size_t strlen(const char *text)
{
	size_t length = 0;

	while (text[length]) {
		OPAQUE;
		length++;
	}
	return length;
}

char *strcpy(char *restrict to, const char *restrict from)
{
	return memcpy(to, from, strlen(from) + 1);
}

int strcmp(const char *left, const char *right)
{
	while (*left && *left == *right)
		left++, right++;
	return (unsigned char)*left - (unsigned char)*right;
}

char *strchr(const char *text, int byte)
{
	return memchr(text, byte, strlen(text) + 1);
}

char *strrchr(const char *text, int byte)
{
	size_t left = strlen(text) + 1;

	while (left--)
		if (text[left] == (char)byte)
			return (char *)(uintptr_t)(text + left);
	return NULL;
}

size_t strspn(const char *text, const char *accept)
{
	size_t length = 0;

	while (text[length] && strchr(accept, text[length]))
		length++;
	return length;
}

size_t strcspn(const char *text, const char *reject)
{
	size_t length = 0;

	while (text[length] && !strchr(reject, text[length]))
		length++;
	return length;
}

char *strstr(const char *text, const char *wanted)
{
	size_t length = strlen(wanted);

	for (; *text; text++)
		if (strnlen(text, length) == length && memcmp(text, wanted, length) == 0)
			return (char *)(uintptr_t)text;
	return NULL;
}
