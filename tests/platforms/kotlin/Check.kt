// Asks the text files of samples/android: a question a line in, an answer a line out.
//
//   VOCABULARY LABELS LOWER_CASE STRIP_ACCENTS MARKS_CASE < questions
//
// Texts are written as UTF-8 in hexadecimal digits, numbers with commas between.

import kit.text.Tokenizer
import kit.text.TokenizerSettings
import kit.text.SymbolReader
import kit.text.findSpans
import kit.text.likeliest
import kit.text.overThreshold
import kit.text.placeWords
import kit.text.windows
import java.io.File

private fun fromHex(digits: String) =
    String(digits.chunked(2).map { it.toInt(16).toByte() }.toByteArray(), Charsets.UTF_8)

private fun toHex(text: String) = text.toByteArray().joinToString("") { "%02x".format(it) }

fun main(words: Array<String>) {
    val (vocabulary, labels) = words.take(2).map { File(it).readText().removeSuffix("\n").split("\n") }
    val (lower, strip, marks) = words.drop(2).map { it == "true" }
    val settings = TokenizerSettings(lower, strip, marks)
    val tokenizer = Tokenizer(vocabulary, settings)
    for (line in generateSequence(::readlnOrNull)) {
        val (question, digits, limit, numbers) = line.split(" ")
        val text = fromHex(digits)
        println(when (question) {
            "fold" -> toHex(SymbolReader(settings).fold(text))
            "encode" -> tokenizer.encode(text, limit.toInt()).joinToString(",")
            "windows" -> tokenizer.windows(text, limit.toInt()).joinToString(" ") { it.ids.joinToString(",") }
            "words" -> placeWords(tokenizer.windows(text, limit.toInt()), tokenizer.marks)
                .joinToString(" ") { "${it.window},${it.token},${it.begin},${it.end}" }
            "spans" -> {
                val windows = tokenizer.windows(text, limit.toInt())
                val places = placeWords(windows, tokenizer.marks)
                val values = numbers.split(",").map { it.toFloat() }.chunked(labels.size)
                val starts = windows.runningFold(0) { sum, window -> sum + window.ids.size }
                findSpans(labels, text, places, places.map { values[starts[it.window] + it.token].toFloatArray() })
                    .joinToString(" ") { "${it.label},${it.begin},${it.end},${toHex(it.text)},${it.score}" }
            }
            "labels" -> { // scores, then thresholds, then what the likeliest label must reach
                val values = numbers.split(",").map { it.toDouble() }
                val scores = labels.zip(values.map { it.toFloat() }).toMap()
                val thresholds = labels.zip(values.drop(labels.size)).toMap()
                "${likeliest(scores, values.last())} ${overThreshold(scores, thresholds).joinToString(",")}"
            }
            else -> error("unknown question $question")
        })
    }
}
