-- redrive <selection>: gives dead letters back to their groups.
local function verb()
  local found, after = select_letters()
  local answers, there, bytes, revived = {}, {}, 0, {}
  for _, each in ipairs(found) do
    if not find_group(each[2][3]) then
      return { 'no_group', each[2][1], each[2][2] }
    end
    there[each[1]] = true
    answers[#answers + 1] = { each[1], 0 }
  end
  for nth = 11, 10 + tonumber(ARGV[10]) do
    local id = tonumber(ARGV[nth])
    if not there[id] and call('HEXISTS', P .. 'letter', int(id)) == 0 then
      if not call('ZSCORE', P .. 'redriven', int(id)) then
        return { 'no_letter', id }
      end
      there[id] = true
      answers[#answers + 1] = { id, 1 }
    end
  end
  for nth, each in ipairs(found) do
    local id, header = each[1], each[2]
    if bytes > STEP_BYTES then
      -- Enough for one step: the rest in the next, which begins after the one before.
      after = found[nth - 1][1]
      for place = #answers, 1, -1 do
        if answers[place][1] > after then
          table.remove(answers, place)
        end
      end
      break
    end
    local event = cmsgpack.unpack(call('HGET', P .. 'letter:events', int(id)))
    bytes = bytes + #event[2]
    journal_letter('redrive', id, header)
    call('ZADD', P .. 'redriven', now, int(id))
    arm('redriven', now + C.window)
    drop_letter(id, header)
    make_topic(header[1])
    local group = find_group(header[3])
    local cell = {
      position = header[5], letter = { '', event[1], event[2] }, state = DEAD, consumer = 0,
      delivery = header[11], born = header[11], attempts = 0, since = now, at = 0, extra = true, suspect = false,
    }
    group.revived = group.revived + (find_letter(group, cell.position) and 0 or 1)
    save_extra(group, cell, { h = header[13] })
    make_ready(group, cell, false)
    revived[#revived + 1] = group
  end
  for _, group in ipairs(revived) do
    serve(topics[group.topic], group)
  end
  table.sort(answers, function(a, b) return a[1] < b[1] end)
  return { 'ok', answers, after }
end
