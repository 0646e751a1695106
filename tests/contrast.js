// A page's root in → what on it is too faint, has no name or is too small; see contrast.py.
({
  low(root) {
    const parse = (text) => {
      const [r, g, b, a = 1] = (text.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
      return text.startsWith('color(srgb') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const level = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const over = ([r, g, b, a], under) => [r, g, b].map((v, n) => v * a + under[n] * (1 - a));
    const ratio = (a, b) => {
      const [x, y] = [level(a), level(b)].sort((m, n) => n - m);
      return (x + 0.05) / (y + 0.05);
    };
    const behind = (node) => {
      const layers = [];
      for (; node; node = node.parentElement) {
        const colour = parse(getComputedStyle(node).backgroundColor);
        if (colour[3] > 0) layers.push(colour);
        if (colour[3] === 1) break;
      }
      return layers.reverse().reduce((under, layer) => over(layer, under), [0, 0, 0]);
    };
    const shown = (node) => {
      const style = getComputedStyle(node);
      return node.getClientRects().length && style.visibility === 'visible' && !node.closest('[inert]');
    };
    const opacity = (node) => {
      let all = 1;
      for (; node; node = node.parentElement) all *= Number(getComputedStyle(node).opacity);
      return all;
    };
    const off = (node) => node.closest(':disabled, [aria-disabled=true]');
    const name = (node) => `${node.tagName.toLowerCase()}.${[...node.classList].join('.')}`;
    const out = [];
    const text = (node, colour, what) => {
      const ground = behind(node);
      const seen = parse(colour);
      const found = ratio(over([...seen.slice(0, 3), seen[3] * opacity(node)], ground), ground);
      if (found < 4.5) out.push(`${found.toFixed(2)} ${what} ${name(node)}`);
      return found;
    };
    for (const node of document.querySelectorAll(`${root} *`)) {
      if (!shown(node) || off(node) || node.tagName === 'OPTION' || node.closest('svg, .js-plotly-plot')) continue;
      const words = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join(' ').trim();
      const field = node.matches('textarea, input:not([type=range], [type=color], [type=checkbox], [type=file])');
      if (words) text(node, getComputedStyle(node).color, words.slice(0, 40));
      if (field && node.value) text(node, getComputedStyle(node).color, node.value.slice(0, 40));
      if (field && !node.value && node.placeholder) text(node, getComputedStyle(node, '::placeholder').color, node.placeholder.slice(0, 40));
      if (!node.matches('button, select, textarea, input:not([type=color], [type=file]), [role=button]')) continue;
      if (words || node.value || node.placeholder || node.querySelector('*')?.textContent.trim()) continue; // judged as text
      const around = behind(node.parentElement);
      const style = getComputedStyle(node);
      const parts = [over(parse(style.borderTopColor), around), behind(node)];
      if (parseFloat(style.borderTopWidth) === 0) parts.shift();
      const icon = node.querySelector('svg');
      if (icon) parts.push(over([...parse(getComputedStyle(icon).color).slice(0, 3), opacity(node)], behind(node)));
      const best = Math.max(...parts.map((part) => ratio(part, around)));
      if (node.type !== 'range' && best < 3) out.push(`${best.toFixed(2)} control ${name(node)} ${node.title || node.getAttribute('aria-label')}`);
    }
    return [...new Set(out)];
  },

  nameless(root) {
    return [...document.querySelectorAll(`${root} :is(button, input, select, textarea, canvas, [role=button], [tabindex="0"])`)]
      .filter((node) => node.getClientRects().length && !node.matches('.rr-ticks, [type=file]') && !node.closest('.js-plotly-plot'))
      .filter((node) => !(node.getAttribute('aria-label') || '').trim() && !node.getAttribute('aria-labelledby'))
      .filter((node) => !node.closest('label')?.textContent.trim())
      .filter((node) => node.matches('input, select, textarea, canvas') || !node.textContent.trim() || !/[\p{L}\p{N}]/u.test(node.textContent))
      .map((node) => node.outerHTML.slice(0, 120));
  },

  small(root, least) {
    return [...document.querySelectorAll(`${root} :is(button, select, input:not([type=file], [type=range]), summary, [role=button])`)]
      .filter((node) => node.getClientRects().length && !node.closest('.js-plotly-plot'))
      .map((node) => [node, node.getBoundingClientRect()])
      .filter(([, box]) => Math.min(box.width, box.height) < least)
      .map(([node, box]) => `${box.width.toFixed(0)} × ${box.height.toFixed(0)} ${node.tagName} ${node.className} ${node.getAttribute('aria-label') || node.textContent}`);
  },
})
