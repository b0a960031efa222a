/* Decodes the launch program.  Every length is checked before it is believed. */
#include "program.h"

#include <endian.h>
#include <string.h>

#define HEADER_SIZE 24
#define RECORD_SIZE 8

static const char MAGIC[8] = "ctrprog"; /* the eighth byte is the NUL */

static uint32_t get_u32(const uint8_t *data)
{
	uint32_t value;

	memcpy(&value, data, sizeof(value));
	return le32toh(value);
}

static int64_t get_i64(const uint8_t *data)
{
	uint64_t value;

	memcpy(&value, data, sizeof(value));
	return (int64_t)le64toh(value);
}

/* What is left of a payload. */
struct reader {
	const uint8_t *data;
	uint32_t left;
};

static const uint8_t *take(struct reader *reader, uint32_t count)
{
	const uint8_t *data = reader->data;

	if (count > reader->left)
		return NULL;
	reader->data += count;
	reader->left -= count;
	return data;
}

static bool take_u32(struct reader *reader, uint32_t *value)
{
	const uint8_t *data = take(reader, 4);

	if (data)
		*value = get_u32(data);
	return data;
}

static bool take_number(struct reader *reader, int64_t *value)
{
	const uint8_t *data = take(reader, 8);

	if (data)
		*value = get_i64(data);
	return data;
}

static bool take_bytes(struct reader *reader, struct field *field)
{
	return take_u32(reader, &field->size) && (field->data = take(reader, field->size));
}

static bool take_text(struct reader *reader, struct field *field)
{
	const uint8_t *end;

	if (!take_bytes(reader, field) || memchr(field->data, 0, field->size))
		return false;
	end = take(reader, 1);
	return end && *end == 0;
}

static bool take_list(struct reader *reader, struct field *field, bool texts)
{
	struct field item;
	uint32_t i;

	if (!take_u32(reader, &field->size))
		return false;
	field->data = reader->data;
	for (i = 0; i < field->size; i++)
		if (!(texts ? take_text(reader, &item) : take_number(reader, &item.number)))
			return false;
	return true;
}

static bool take_field(struct reader *reader, char kind, struct field *field)
{
	switch (kind) {
	case 'i':
		return take_number(reader, &field->number);
	case 'l':
		return take_number(reader, &field->number) && field->number >= 0 &&
		       field->number < MAX_SLOTS;
	case 'L':
		return take_number(reader, &field->number) && field->number >= NO_SLOT &&
		       field->number < MAX_SLOTS;
	case 's':
		return take_text(reader, field);
	case 'b':
		return take_bytes(reader, field);
	case 'I':
		return take_list(reader, field, false);
	case 'S':
		return take_list(reader, field, true);
	}
	return false;
}

bool decode_fields(const struct operation *operation, struct field *fields)
{
	struct reader reader = {operation->payload, operation->size};
	const char *kind;

	for (kind = operation->type->fields; *kind; kind++, fields++) {
		*fields = (struct field){0};
		if (!take_field(&reader, *kind, fields))
			return false;
	}
	return reader.left == 0;
}

const char *next_text(const uint8_t **cursor)
{
	const uint8_t *text = *cursor + 4;

	*cursor = text + get_u32(*cursor) + 1;
	return (const char *)text;
}

int64_t next_number(const uint8_t **cursor)
{
	int64_t number = get_i64(*cursor);

	*cursor += 8;
	return number;
}

enum side phase_side(uint8_t phase)
{
	if (phase == WATCH)
		return SUPERVISOR;
	return phase <= CLONED ? PARENT : CHILD;
}

static const char *read_record(const struct program *program, size_t *offset,
			       struct operation *operation)
{
	const uint8_t *record = program->data + *offset;
	uint16_t opcode;

	if (program->size - *offset < RECORD_SIZE)
		return "is cut off";
	operation->phase = record[2];
	operation->size = get_u32(record + 4);
	operation->payload = record + RECORD_SIZE;
	if (operation->phase >= PHASES || record[3] != 0)
		return "is damaged";
	if (operation->size > program->size - *offset - RECORD_SIZE)
		return "is cut off";
	opcode = (uint16_t)(record[0] | record[1] << 8);
	operation->type = operation_type(opcode);
	if (!operation->type)
		return "is of a kind that this launcher does not know";
	*offset += RECORD_SIZE + operation->size;
	return NULL;
}

bool program_next(const struct program *program, size_t *offset, struct operation *operation)
{
	if (*offset == 0)
		*offset = HEADER_SIZE;
	return *offset < program->size && !read_record(program, offset, operation);
}

/* Where the program stands while it is checked. */
struct shape {
	int phase;
	int clones;
	bool parted; /* the parent's Sync was seen */
	bool ended;  /* the Exec was seen */
};

/* One Clone, alone in its phase; the parent's one Sync at the end of its part; Exec last. */
static const char *check_shape(struct shape *shape, const struct operation *operation)
{
	uint16_t opcode = operation->type->opcode;

	if (operation->phase < shape->phase)
		return "goes back to an earlier phase";
	shape->phase = operation->phase;
	if (shape->ended)
		return "comes after Exec";
	if (!(operation->type->sides & phase_side(operation->phase)))
		return "does not belong to its phase";
	if ((opcode == OP_CLONE) != (operation->phase == CLONE) ||
	    (opcode == OP_SYNC && operation->phase < CLONED) ||
	    (operation->phase == CLONED && shape->parted))
		return "does not belong to its phase";
	if (operation->phase > CLONE && shape->clones != 1)
		return "comes without one Clone before it";
	shape->clones += opcode == OP_CLONE;
	shape->parted |= opcode == OP_SYNC;
	shape->ended = opcode == OP_EXEC;
	return NULL;
}

static const char *check_header(const uint8_t *data, size_t size)
{
	if (size < HEADER_SIZE || memcmp(data, MAGIC, sizeof(MAGIC)) != 0)
		return "no launch program";
	if (get_u32(data + 8) != PROGRAM_VERSION)
		return "a launch program of another version";
	if (get_u32(data + 20) != size || size > PROGRAM_MAX_SIZE)
		return "a launch program of another size than its header says";
	return NULL;
}

const char *program_check(struct program *program, const uint8_t *data, size_t size, int *index)
{
	struct shape shape = {0};
	struct operation operation;
	struct field fields[MAX_FIELDS];
	size_t offset = HEADER_SIZE;
	const char *wrong;

	*index = -1;
	wrong = check_header(data, size);
	if (wrong)
		return wrong;
	*program = (struct program){.data = data, .size = size, .flags = get_u32(data + 12)};
	while (offset < size) {
		++*index;
		wrong = read_record(program, &offset, &operation);
		if (!wrong)
			wrong = check_shape(&shape, &operation);
		if (!wrong && !decode_fields(&operation, fields))
			wrong = "has damaged fields";
		if (wrong)
			return wrong;
		program->init |= operation.type->opcode == OP_INIT;
	}
	if (get_u32(data + 16) != (uint32_t)(*index + 1)) {
		*index = -1;
		return "a launch program of another length than its header says";
	}
	*index = -1;
	return shape.ended ? NULL : "a launch program without Exec";
}
