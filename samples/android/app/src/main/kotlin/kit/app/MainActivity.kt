package kit.app

import android.app.Activity
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.text.Editable
import android.text.TextWatcher
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView
import java.util.concurrent.Executors

/** A field for a text, and below it what the model says of it. */
class MainActivity : Activity() {
    // Loading and answering take time that the screen's thread does not have; one thread keeps order.
    private val worker = Executors.newSingleThreadExecutor()
    private val screen = Handler(Looper.getMainLooper())
    private var answerer: Answerer? = null // used on the worker's thread alone

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        val question = EditText(this).apply { hint = "A text" }
        val answer = TextView(this).apply { textSize = 18f }
        setContentView(LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            setPadding(32, 32, 32, 32)
            addView(question)
            addView(answer)
        })
        question.addTextChangedListener(object : TextWatcher {
            override fun afterTextChanged(text: Editable) = ask(text.toString(), answer)
            override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit
            override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = Unit
        })
    }

    private fun ask(text: String, shown: TextView) {
        worker.execute {
            // Shown in words: a file that lies in the wrong place is the likeliest reason.
            val said = runCatching { describe(loaded().answer(text)) }.getOrElse { it.toString() }
            screen.post { shown.text = said }
        }
    }

    private fun loaded(): Answerer = answerer ?: open(Artifact(assets)).also { answerer = it }

    private fun open(artifact: Artifact): Answerer = when (artifact.task) {
        "classify", "multilabel" -> Classifier(this, artifact)
        "tag" -> Tagger(artifact)
        "embed" -> Embedder(artifact)
        else -> error("The model's task is ${artifact.task}. This app knows classify, multilabel, tag and embed.")
    }

    override fun onDestroy() {
        worker.execute { answerer?.close() }
        worker.shutdown()
        super.onDestroy()
    }
}

private fun describe(answer: Answer): String = when (answer) {
    is Answer.Labels -> (listOf(answer.chosen.joinToString(" and ").ifEmpty { "no label" }) +
        answer.scores.entries.sortedByDescending { it.value }.map { "%s %.1f %%".format(it.key, 100 * it.value) })
        .joinToString("\n")
    is Answer.Spans -> answer.found.joinToString("\n") { "${it.label}: ${it.text}" }.ifEmpty { "no span" }
    is Answer.Vector -> "${answer.values.size} numbers: " +
        answer.values.take(4).joinToString(", ") { "%.3f".format(it) } + " …"
}
