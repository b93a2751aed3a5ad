package kit.app

import com.google.ai.edge.litert.CompiledModel
import kit.text.Tokenizer
import kit.text.findSpans
import kit.text.placeWords
import kit.text.windows

/** A .tflite file on LiteRT, from token ids to its one output. */
class LiteRtModel(private val artifact: Artifact) : AutoCloseable {
    private val model = CompiledModel.create(artifact.assets, artifact.file, CompiledModel.Options.CPU)
    // By name: in the file the inputs stand in another order.
    private val inputs = listOf("input_ids", "attention_mask", "token_type_ids")
        .associateWith { model.createInputBuffer(it, SIGNATURE) }
    private val outputs = mapOf(artifact.output to model.createOutputBuffer(artifact.output, SIGNATURE))

    fun run(ids: IntArray): FloatArray {
        val length = artifact.length
        inputs.getValue("input_ids").writeInt(IntArray(length) { ids.getOrElse(it) { artifact.padId } })
        inputs.getValue("attention_mask").writeInt(IntArray(length) { if (it < ids.size) 1 else 0 })
        inputs.getValue("token_type_ids").writeInt(IntArray(length))
        model.run(inputs, outputs, SIGNATURE)
        return outputs.getValue(artifact.output).readFloat()
    }

    override fun close() {
        (inputs.values + outputs.values).forEach { it.close() }
        model.close()
    }

    private companion object {
        const val SIGNATURE = "serving_default"
    }
}

/** Names in a text: each word is read at its first piece. Long texts are read in windows. */
class Tagger(private val artifact: Artifact) : Answerer {
    private val tokenizer = Tokenizer(artifact.vocabulary, artifact.settings)
    private val model = LiteRtModel(artifact)

    override fun answer(text: String): Answer {
        val windows = tokenizer.windows(text, artifact.limit)
        val outputs = windows.map { model.run(it.ids) }
        val words = placeWords(windows, tokenizer.marks)
        val count = artifact.labels.size
        val logits = words.map { outputs[it.window].copyOfRange(it.token * count, (it.token + 1) * count) }
        return Answer.Spans(findSpans(artifact.labels, text, words, logits))
    }

    override fun close() = model.close()
}

/** The vector of a text, for search. What is longer than the file reads is cut. */
class Embedder(private val artifact: Artifact) : Answerer {
    private val tokenizer = Tokenizer(artifact.vocabulary, artifact.settings)
    private val model = LiteRtModel(artifact)

    override fun answer(text: String): Answer = Answer.Vector(model.run(tokenizer.encode(text, artifact.limit)))

    override fun close() = model.close()
}
