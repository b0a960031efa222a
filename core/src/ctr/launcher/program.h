/* The launch program as it arrives (ctr/encoding.py is its specification). */
#ifndef CTR_PROGRAM_H
#define CTR_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRAM_VERSION 1
#define PROGRAM_MAX_SIZE (4U << 20)
#define PROGRAM_TRACE 1U /* header flag */
#define MAX_SLOTS 256
#define NO_SLOT (-1)
#define MAX_FIELDS 8

/* ctr.program.Phase */
enum phase { WATCH, PREPARE, CLONE, CLONED, JOIN, SETUP, ROOT, LAST, PHASES };

/* Bits, so that an operation can belong to several sides. */
enum side { SUPERVISOR = 1, PARENT = 2, CHILD = 4 };

/* One decoded field.  Integers: `number`.  Text (ends with a NUL) and bytes: `data`, `size`.
 * Lists: `size` items, the first at `data`; step with next_text and next_number. */
struct field {
	int64_t number;
	const uint8_t *data;
	uint32_t size;
};

struct run;

/* `fields`: a letter a field: i integer, l slot, L slot or NO_SLOT, s text, b bytes,
 * I list of integers, S list of texts. */
struct operation_type {
	uint16_t opcode;
	const char *fields;
	unsigned sides;
	int (*run)(struct run *run, const struct field *fields);
};

struct operation {
	const struct operation_type *type;
	uint8_t phase;
	const uint8_t *payload;
	uint32_t size;
};

struct program {
	const uint8_t *data;
	size_t size;
	uint32_t flags;
	bool init; /* PID 1 stays as an init and does not exec */
};

/* Opcodes that the program's shape depends on. */
enum { OP_CLONE = 10, OP_SYNC = 13, OP_INIT = 40, OP_EXEC = 42 };

/* The operation's type, or NULL (operations.c). */
const struct operation_type *operation_type(uint16_t opcode);

/* Checks all of `data`; returns NULL and fills `program`, or says what is wrong, with
 * `index` set to the operation's index or -1. */
const char *program_check(struct program *program, const uint8_t *data, size_t size, int *index);

/* Steps through a checked program; `offset` starts at 0.  False at the end. */
bool program_next(const struct program *program, size_t *offset, struct operation *operation);

/* Decodes the fields of one operation.  False when they do not fit the payload exactly. */
bool decode_fields(const struct operation *operation, struct field *fields);

enum side phase_side(uint8_t phase);
const char *next_text(const uint8_t **cursor);
int64_t next_number(const uint8_t **cursor);

#endif
