/* Answers token ids with a SavedModel of core operations on TensorFlow's C API, without Python.
 *
 *   saved_model FOLDER SIGNATURE OUTPUT INDEX < ids
 *
 * FOLDER is saved_model/1 of an artifact made with `--signatures tokens`; SIGNATURE and the name
 * and index of the output stand in its manifest.json, e.g. serving_default and
 * "StatefulPartitionedCall:0". A line of input holds a text's token ids with blanks between; a
 * line of output holds the numbers that the model answers.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

enum { INPUTS = 3, MOST = 512 };
static const char *const NAMES[INPUTS] = {"input_ids", "attention_mask", "token_type_ids"};

static void need(TF_Status *status, const char *what) {
  if (TF_GetCode(status) != TF_OK) {
    fprintf(stderr, "%s: %s\n", what, TF_Message(status));
    exit(1);
  }
}

static TF_Output named(TF_Graph *graph, const char *name, int index) {
  TF_Output found = {TF_GraphOperationByName(graph, name), index};
  if (found.oper == NULL) {
    fprintf(stderr, "the SavedModel has no operation %s\n", name);
    exit(1);
  }
  return found;
}

/* One text's ids, 1 for each, or 0 for each: int32 (1, count). */
static TF_Tensor *input(int which, const int32_t *ids, int64_t count) {
  const int64_t shape[2] = {1, count};
  TF_Tensor *made = TF_AllocateTensor(TF_INT32, shape, 2, (size_t)count * sizeof *ids);
  int32_t *values = TF_TensorData(made);
  for (int64_t i = 0; i < count; i++) values[i] = which == 0 ? ids[i] : which == 1;
  return made;
}

static int64_t read_ids(const char *line, int32_t *ids) {
  int64_t count = 0;
  char *end;
  for (long id = strtol(line, &end, 10); end != line && count < MOST;
       id = strtol(line, &end, 10)) {
    ids[count++] = (int32_t)id;
    line = end;
  }
  return count;
}

int main(int argc, char **argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: saved_model FOLDER SIGNATURE OUTPUT INDEX < ids\n");
    return 2;
  }
  const char *const tags[] = {"serve"};
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session =
      TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  need(status, argv[1]);

  TF_Output inputs[INPUTS];
  for (int i = 0; i < INPUTS; i++) {
    char name[256];
    snprintf(name, sizeof name, "%s_%s", argv[2], NAMES[i]);
    inputs[i] = named(graph, name, 0);
  }
  TF_Output output = named(graph, argv[3], atoi(argv[4]));

  int32_t ids[MOST];
  char *line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stdin) > 0) {
    int64_t count = read_ids(line, ids);
    TF_Tensor *given[INPUTS], *answer = NULL;
    for (int i = 0; i < INPUTS; i++) given[i] = input(i, ids, count);
    TF_SessionRun(session, NULL, inputs, given, INPUTS, &output, &answer, 1, NULL, 0, NULL,
                  status);
    need(status, "running");
    const float *values = TF_TensorData(answer);
    size_t numbers = TF_TensorByteSize(answer) / sizeof *values;
    for (size_t i = 0; i < numbers; i++) printf(i ? " %.7g" : "%.7g", values[i]);
    printf("\n");
    for (int i = 0; i < INPUTS; i++) TF_DeleteTensor(given[i]);
    TF_DeleteTensor(answer);
  }
  free(line);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return 0;
}
