package kit.app

import android.content.Context
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.text.textclassifier.TextClassifier
import kit.text.SymbolReader
import kit.text.likeliest
import kit.text.overThreshold

/** Labels of a text, from MediaPipe's TextClassifier: vocabulary and labels are in the file. */
class Classifier(context: Context, private val artifact: Artifact) : Answerer {
    // Its own tokenizer keeps accents and looks at ASCII's capitals only: texts are folded before.
    private val reader = SymbolReader(artifact.settings)
    private val classifier = TextClassifier.createFromOptions(
        context,
        TextClassifier.TextClassifierOptions.builder()
            .setBaseOptions(BaseOptions.builder().setModelAssetPath(artifact.file).build())
            .build(),
    )

    override fun answer(text: String): Answer {
        val categories =
            classifier.classify(reader.fold(text)).classificationResult().classifications().first().categories()
        val scores = categories.associate { it.categoryName() to it.score() }
        val chosen = if (artifact.task == "multilabel") overThreshold(scores, artifact.thresholds)
            else listOfNotNull(likeliest(scores, artifact.abstainBelow))
        return Answer.Labels(chosen, scores)
    }

    override fun close() = classifier.close()
}
