package kit.app

import kit.text.Span

/** What a model says of a text. */
sealed interface Answer {
    /** Labels that hold, none where the model is too unsure, and the score of each label. */
    data class Labels(val chosen: List<String>, val scores: Map<String, Float>) : Answer

    data class Spans(val found: List<Span>) : Answer

    /** A vector whose product with another text's is their likeness. */
    class Vector(val values: FloatArray) : Answer
}

/** A loaded model. Not for several threads at a time; close it to give its memory back. */
interface Answerer : AutoCloseable {
    fun answer(text: String): Answer
}
