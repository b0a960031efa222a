/* Checks programs from standard input, each after its size as an u32, and walks through all
 * fields of the good ones.  Compiled with the sanitizers by test_native_program.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launcher.h"

static unsigned long walk(const struct program *program)
{
	struct operation operation;
	struct field fields[MAX_FIELDS];
	const uint8_t *cursor;
	unsigned long sum = 0;
	size_t offset = 0;
	uint32_t i;
	int kind;

	while (program_next(program, &offset, &operation)) {
		if (!decode_fields(&operation, fields))
			abort();
		for (kind = 0; operation.type->fields[kind]; kind++) {
			cursor = fields[kind].data;
			for (i = 0; i < fields[kind].size; i++) {
				switch (operation.type->fields[kind]) {
				case 'I':
					sum += (unsigned long)next_number(&cursor);
					break;
				case 'S':
					sum += strlen(next_text(&cursor));
					break;
				default:
					sum += cursor[i];
				}
			}
			sum += (unsigned long)fields[kind].number;
		}
	}
	return sum;
}

int main(void)
{
	struct program program;
	const char *wrong;
	uint8_t *data;
	uint32_t size;
	int index;

	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		data = malloc(size); /* of just that size, so that the sanitizer sees an overrun */
		if (!data || fread(data, 1, size, stdin) != size)
			return 1;
		wrong = program_check(&program, data, size, &index);
		if (wrong)
			printf("%d %s\n", index, wrong);
		else
			printf("good %lu\n", walk(&program));
		fflush(stdout);
		free(data);
	}
	return 0;
}
