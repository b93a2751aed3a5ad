package kit.text

import kotlin.math.exp
import kotlin.math.ln

/** A found span: UTF-16 units of the text, and the mean probability of its words' tags. */
data class Span(val label: String, val begin: Int, val end: Int, val text: String, val score: Double)

/** Normalize to probabilities that sum to 1, safely for large logits. */
fun softmax(logits: FloatArray): DoubleArray = logSoftmax(logits).map(::exp).toDoubleArray()

/** The logarithm of softmax. */
fun logSoftmax(logits: FloatArray): DoubleArray {
    val most = logits.max().toDouble()
    val sum = ln(logits.sumOf { exp(it - most) })
    return DoubleArray(logits.size) { logits[it] - most - sum }
}

/** The likeliest label, or null where it is less likely than `abstainBelow` of manifest.json. */
fun likeliest(scores: Map<String, Float>, abstainBelow: Double): String? =
    scores.maxBy { it.value }.takeIf { it.value >= abstainBelow }?.key

/** The labels at or over their thresholds of manifest.json, the likeliest first; without any, .5. */
fun overThreshold(scores: Map<String, Float>, thresholds: Map<String, Double>): List<String> =
    scores.entries.sortedByDescending { it.value }
        .filter { it.value >= (thresholds[it.key] ?: 0.5) }.map { it.key }

/**
 * The spans of a text.
 *
 * @param logits those of each word, a value for each label
 */
fun findSpans(labels: List<String>, text: String, words: List<Word>, logits: List<FloatArray>): List<Span> {
    if (words.isEmpty()) return emptyList()
    val tags = bestTags(logits.map(::logSoftmax), labels)
    return readSpans(tags.map { labels[it] }).map { (label, range) ->
        val (begin, end) = words[range.first].begin to words[range.last].end
        Span(label, begin, end, text.substring(begin, end), range.map { softmax(logits[it])[tags[it]] }.average())
    }
}

/**
 * The likeliest valid sequence of labels, by number, for log-probabilities [word][label].
 *
 * I-x may only follow B-x or I-x, where the labels hold a B-x. The search is Viterbi's with
 * transitions that are free or forbidden.
 */
fun bestTags(scores: List<DoubleArray>, labels: List<String>): List<Int> {
    val before = labels.map { allowedBefore(it, labels) }
    fun allowed(from: Int, to: Int) = before[to]?.contains(labels[from]) ?: true
    var best = labels.indices.map { if (before[it] == null) scores[0][it] else Double.NEGATIVE_INFINITY }
    val back = mutableListOf<List<Int>>()
    for (row in scores.drop(1)) {
        val from = labels.indices.map { to ->
            labels.indices.maxBy { if (allowed(it, to)) best[it] else Double.NEGATIVE_INFINITY }
        }
        best = labels.indices.map { to ->
            if (allowed(from[to], to)) best[from[to]] + row[to] else Double.NEGATIVE_INFINITY
        }
        back += from
    }
    val chosen = ArrayDeque(listOf(best.indices.maxBy { best[it] }))
    for (from in back.reversed()) chosen.addFirst(from[chosen.first()])
    return chosen
}

/** The labels that may stand before this one; null: any, and it may come first. */
private fun allowedBefore(label: String, labels: List<String>): Set<String>? {
    val name = label.removePrefix("I-")
    return if (name != label && "B-$name" in labels) setOf("B-$name", "I-$name") else null
}

// BIO, BMES, BIOES and BILOU write a start and an end like this.
private val STARTS = setOf("B", "S", "U")
private val ENDS = setOf("E", "S", "L")

/** The labels and word numbers of tags; a tag that continues nothing opens a span. */
fun readSpans(tags: List<String>): List<Pair<String, IntRange>> {
    val spans = mutableListOf<Pair<String, IntRange>>()
    var open: String? = null
    tags.forEachIndexed { place, tag ->
        val (prefix, name) = tag.substringBefore('-') to tag.substringAfter('-', "")
        when {
            name.isEmpty() -> Unit
            prefix !in STARTS && name == open ->
                spans[spans.lastIndex] = name to spans.last().second.first..place
            else -> spans += name to place..place
        }
        open = name.takeIf { it.isNotEmpty() && prefix !in ENDS }
    }
    return spans
}
