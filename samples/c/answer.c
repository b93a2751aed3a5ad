/* Answers token ids with a .tflite file on LiteRT's C API, as an app for Android or iOS would.
 *
 *   answer MODEL.tflite < ids
 *
 * A line of input holds a text's token ids, [CLS] and [SEP] included, with blanks between; a line
 * of output holds the numbers that the model answers. Texts are cut to the file's length.
 *
 * libLiteRt.so comes with the Python package ai-edge-litert, without headers, so what is used of
 * them is declared here, for version 2.3; for an app take the headers of its own LiteRT release.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Environment *Environment;
typedef struct Model *Model;
typedef struct Options *Options;
typedef struct Compiled *Compiled;
typedef struct Signature *Signature;
typedef struct Tensor *Tensor;
typedef struct Requirements *Requirements;
typedef struct Buffer *Buffer;

typedef struct {
  int32_t element;
  struct {
    uint32_t rank; /* and, above its lowest 7 bits, whether there are strides */
    int32_t dimensions[8];
    uint32_t strides[8];
  } layout;
} RankedType;

enum { CPU = 1, READ = 0, WRITE = 1, INPUTS = 3 };

int LiteRtCreateEnvironment(int count, const void *options, Environment *made);
int LiteRtCreateModelFromFile(Environment environment, const char *path, Model *made);
int LiteRtCreateOptions(Options *made);
int LiteRtSetOptionsHardwareAccelerators(Options options, int which);
int LiteRtCreateCompiledModel(Environment environment, Model model, Options options,
                              Compiled *made);
int LiteRtGetModelSignature(Model model, size_t index, Signature *found);
int LiteRtGetNumSignatureInputs(Signature signature, size_t *count);
int LiteRtGetSignatureInputName(Signature signature, size_t index, const char **name);
int LiteRtGetSignatureInputTensorByIndex(Signature signature, size_t index, Tensor *found);
int LiteRtGetSignatureOutputTensorByIndex(Signature signature, size_t index, Tensor *found);
int LiteRtGetRankedTensorType(Tensor tensor, RankedType *type);
int LiteRtGetCompiledModelInputBufferRequirements(Compiled model, size_t signature, size_t index,
                                                  Requirements *found);
int LiteRtGetCompiledModelOutputBufferRequirements(Compiled model, size_t signature, size_t index,
                                                   Requirements *found);
int LiteRtCreateManagedTensorBufferFromRequirements(Environment environment,
                                                    const RankedType *type,
                                                    Requirements requirements, Buffer *made);
int LiteRtGetTensorBufferPackedSize(Buffer buffer, size_t *bytes);
int LiteRtLockTensorBuffer(Buffer buffer, void **memory, int mode);
int LiteRtUnlockTensorBuffer(Buffer buffer);
int LiteRtRunCompiledModel(Compiled model, size_t signature, size_t inputs, Buffer *input,
                           size_t outputs, Buffer *output);

static void need(int status, const char *what) {
  if (status != 0) {
    fprintf(stderr, "%s failed with status %d\n", what, status);
    exit(1);
  }
}

/* What a text's tokens are worth in the input of this name: ids, 1 for each, 0 for each. */
static void fill(Buffer buffer, const char *name, const int32_t *ids, size_t count,
                 size_t length) {
  void *memory;
  need(LiteRtLockTensorBuffer(buffer, &memory, WRITE), "locking an input");
  int32_t *values = memory;
  memset(values, 0, length * sizeof *values);
  for (size_t i = 0; i < count; i++) {
    if (strcmp(name, "input_ids") == 0) values[i] = ids[i];
    if (strcmp(name, "attention_mask") == 0) values[i] = 1;
  }
  need(LiteRtUnlockTensorBuffer(buffer), "unlocking an input");
}

/* Reads a line of ids; more than fit are dropped, but for the last, which closes the text. */
static size_t read_ids(const char *line, int32_t *ids, size_t most) {
  size_t count = 0;
  char *end;
  for (long id = strtol(line, &end, 10); end != line; id = strtol(line, &end, 10)) {
    ids[count < most ? count++ : most - 1] = (int32_t)id;
    line = end;
  }
  return count;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: answer MODEL.tflite < ids\n");
    return 2;
  }
  Environment environment;
  Model model;
  Options options;
  Compiled compiled;
  Signature signature;
  need(LiteRtCreateEnvironment(0, NULL, &environment), "LiteRT");
  need(LiteRtCreateModelFromFile(environment, argv[1], &model), argv[1]);
  need(LiteRtCreateOptions(&options), "options");
  need(LiteRtSetOptionsHardwareAccelerators(options, CPU), "choosing the CPU");
  need(LiteRtCreateCompiledModel(environment, model, options, &compiled), "compiling");
  need(LiteRtGetModelSignature(model, 0, &signature), "the signature");

  size_t inputs = 0, bytes = 0, length = 0;
  const char *names[INPUTS];
  Buffer given[INPUTS], answer;
  Tensor tensor;
  RankedType type;
  Requirements wanted;
  need(LiteRtGetNumSignatureInputs(signature, &inputs), "the inputs");
  if (inputs != INPUTS) {
    fprintf(stderr, "%s has %zu inputs; expected 3\n", argv[1], inputs);
    return 1;
  }
  for (size_t i = 0; i < INPUTS; i++) { /* in any order: told apart by name */
    need(LiteRtGetSignatureInputName(signature, i, &names[i]), "an input's name");
    need(LiteRtGetSignatureInputTensorByIndex(signature, i, &tensor), names[i]);
    need(LiteRtGetRankedTensorType(tensor, &type), names[i]);
    need(LiteRtGetCompiledModelInputBufferRequirements(compiled, 0, i, &wanted), names[i]);
    need(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, wanted, &given[i]),
         names[i]);
    length = (size_t)type.layout.dimensions[1];
  }
  need(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor), "the output");
  need(LiteRtGetRankedTensorType(tensor, &type), "the output");
  need(LiteRtGetCompiledModelOutputBufferRequirements(compiled, 0, 0, &wanted), "the output");
  need(LiteRtCreateManagedTensorBufferFromRequirements(environment, &type, wanted, &answer),
       "the output");
  need(LiteRtGetTensorBufferPackedSize(answer, &bytes), "the output");

  int32_t *ids = malloc(length * sizeof *ids);
  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    size_t count = read_ids(line, ids, length);
    for (size_t i = 0; i < INPUTS; i++) fill(given[i], names[i], ids, count, length);
    need(LiteRtRunCompiledModel(compiled, 0, INPUTS, given, 1, &answer), "running");
    void *memory;
    need(LiteRtLockTensorBuffer(answer, &memory, READ), "reading the output");
    const float *values = memory;
    for (size_t i = 0; i < bytes / sizeof *values; i++) printf(i ? " %.7g" : "%.7g", values[i]);
    printf("\n");
    need(LiteRtUnlockTensorBuffer(answer), "reading the output");
  }
  free(line);
  free(ids);
  return 0; /* the process's end gives LiteRT's memory back */
}
